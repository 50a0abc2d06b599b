"""Four methods with prompts, against a naive version of the same fitted method: batch 1, equal within 1e-5.

    python -m perf.naive -o perf/results/naive.json

The naive version runs the text tower over the full context of 77 positions for every image, and the image tower once
for each of its outputs. Not every published script is that naive, so a second row measures what the script itself does
for every image, where that differs:

    ada_clip      frozen pass, prompted pass, 48 sentences on 77 positions: the naive version is the script
    vcp_clip      one pass, 2 sentences on 77 positions; naive: one pass for the class token, one for the patches
    anomaly_clip  one pass with two streams, sentences encoded once, as here; naive: one pass for the class token, one
                  for the patches, both sentences encoded for every image
    mvfa          one pass, sentences encoded once, memory normalised for every image; naive: one pass for each of the
                  two sets of adapters, all sentences encoded for every image

Both share every block, head and map with ours; they differ in how often, and on how many positions, these run.
``--full`` adds the paper's backbone, and naive MVFA on large towers, whose 420 sentences take a minute per image.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from perf.timing import Row, arguments, compared, finish, in_turns

import ultraad
from ultraad import methods
from ultraad.backbones._door import Around, Backbone
from ultraad.data.loader import load_batch
from ultraad.data.preprocess import Preprocess
from ultraad.methods._base import Method
from ultraad.methods.ada_clip import AdaCLIP, Seen
from ultraad.methods.anomaly_clip import AnomalyCLIP
from ultraad.methods.mvfa import MVFA
from ultraad.methods.vcp_clip import VCPCLIP
from ultraad.nn.deep_prompts import Replace
from ultraad.nn.key_value import distance_maps
from ultraad.nn.maps import largest, smooth, to_probability
from ultraad.nn.prompts import unit
from ultraad.nn.templates import ABNORMAL_STATES, NORMAL_STATES, TEMPLATES_35, compose
from ultraad.simulate import write_dataset
from ultraad.texts.bank import breast_texts
from ultraad.types import Features, Scores, SupportSet

SHOTS = 4  # the default of MVFA; its memory holds 11 views of every normal image
LARGE = "open_clip:ViT-B-16"
PAPER = "open_clip:ViT-L-14-336-quickgelu"
NEAR = 1e-5
Form = Callable[[Any, torch.Tensor], Scores]


def on_all_positions(
    b: Backbone, embeds: torch.Tensor, eot: torch.Tensor, *, around: Around | None = None
) -> torch.Tensor:
    """``encode_prompts`` as CLIP's own code does it: every position of the context through every block."""
    text = b._text
    x = F.pad(embeds, (0, 0, 0, b.context - embeds.shape[1])) + text.positional_embedding
    for layer, block in enumerate(text.transformer.resblocks, start=1):

        def run(y: torch.Tensor, block: torch.nn.Module = block) -> torch.Tensor:
            return block(y, attn_mask=text.attn_mask)

        x = run(x) if around is None else around(layer, x, run)
    x = text.ln_final(x)
    return x[torch.arange(len(x)), eot] @ text.text_projection


def ada_clip(m: AdaCLIP, images: torch.Tensor) -> Scores:
    """Both passes start at the pixels; the sentences of each side are encoded in one run, starting at their tokens."""
    b, size = m.backbone, m.backbone.size
    frozen = b.encode_image(images).image
    kept, token = m._encode_image(images, m.image_dynamic(frozen))
    patches = torch.stack([unit(head(x)) for head, x in zip(m.patch_heads.values(), kept, strict=True)], 1)
    prompts = m._prompts(m.text_static, m.text_dynamic(frozen))  # (l 1 r w): one image
    sides = []
    for side in (slice(None, m._normal), slice(m._normal, None)):
        around = Replace(dict(enumerate(prompts, start=2)))
        sides.append(unit(on_all_positions(b, m._words[side], m._eot[side], around=around)).mean(0))
    text = unit(torch.stack(sides))[None]  # (1 2 d)
    logits = m.scale * torch.einsum("blnd,btd->blnt", patches, text)
    seen = Seen(patches=patches, token=unit(m.token_head(token)), text=text, logits=logits)
    maps = smooth(to_probability(logits.mean(1), b.grid, size=size), m.config.sigma * size / 518)
    return Scores(score=m.image_probability(seen), map=maps.clamp(0, 1))


def vcp_script(m: VCPCLIP, images: torch.Tensor) -> Scores:
    """One pass; each sentence encoded in its own run."""
    f = m.backbone.encode_image(images, layers=m.layers)
    return _vcp(m, f, f.image)


def vcp_clip(m: VCPCLIP, images: torch.Tensor) -> Scores:
    """The same, with one pass for the class token and one for the patches."""
    token = m.backbone.encode_image(images).image
    return _vcp(m, m.backbone.encode_image(images, layers=m.layers), token)


def _vcp(m: VCPCLIP, f: Features, token: torch.Tensor) -> Scores:
    c, b, sides = m.config, m.backbone, []
    for template in m.templates:
        embeds, eot = template.fill(m.words(token))
        around = m._deep_tokens(len(token), None, sides=1)
        sides.append(on_all_positions(b, embeds, eot + c.deep, around=around))
    raw, new = m.branch_maps(f, unit(torch.stack(sides, dim=1))).mean(1)
    maps = smooth((1 - c.new_weight) * raw + c.new_weight * new, c.sigma * b.size / 518)
    return Scores(score=(largest(raw, share=c.top) + largest(new, share=c.top)) / 2, map=maps.clamp(0, 1))


def anomaly_clip(m: AnomalyCLIP, images: torch.Tensor) -> Scores:
    """One pass for the class token, one for the patches; each sentence encoded in its own run."""
    b = m.backbone
    token = b.encode_image(images, layers=(b.layers,)).cls[b.layers] @ b.projection
    f = m.encode(images)
    around = Replace(dict(enumerate(m.deep, start=2)))
    sides = [
        on_all_positions(b, *template.fill(words[None]), around=around)
        for template, words in zip(m.templates, m.words, strict=True)
    ]
    text = unit(torch.cat(sides))
    maps = smooth(m.layer_maps(f, text).mean(0), m.config.sigma * b.size / 518)
    return Scores(score=m.logits(token, text).softmax(-1)[:, 1], map=maps.clamp(0, 1))


def mvfa_script(m: MVFA, images: torch.Tensor) -> Scores:
    """One pass; the memory normalised for every image."""
    return _mvfa(m, *m.tokens(images)[:, :, :, 1:])


def mvfa(m: MVFA, images: torch.Tensor) -> Scores:
    """One pass for each set of adapters; all sentences encoded again, in chunks."""
    b, words = m.backbone, breast_texts().object
    sides = []
    for states in (NORMAL_STATES, ABNORMAL_STATES):
        tokens = b.tokenize(compose(words, states[m.config.states], TEMPLATES_35))
        parts = [on_all_positions(b, b.embed_text(part), b.end_of_text(part)) for part in torch.split(tokens, 64)]
        sides.append(unit(unit(torch.cat(parts)).mean(0)))
    kept, m.text = m.text, torch.stack(sides)
    try:
        return _mvfa(m, m.tokens(images)[0, :, :, 1:], m.tokens(images)[1, :, :, 1:])
    finally:
        m.text = kept


def _mvfa(m: MVFA, seg: torch.Tensor, det: torch.Tensor) -> Scores:
    b, weight = m.backbone, m.config.memory_weight
    near, _ = (
        distance_maps(x, bank, b.grid, size=b.size).mean(0).clamp(0, 1)
        for x, bank in zip((seg, det), m.memory, strict=True)
    )  # the script computes both, but reports the map's score
    maps = torch.lerp(m.text_maps(seg).mean(0), near, weight)
    return Scores(score=largest(maps), map=maps)


FORMS: dict[str, tuple[Form, Form | None]] = {
    "ada_clip": (ada_clip, None),
    "vcp_clip": (vcp_clip, vcp_script),
    "anomaly_clip": (anomaly_clip, None),
    "mvfa": (mvfa, mvfa_script),
}
"""{method: (the naive form, what the published script does where that is another)}."""


def fitted(name: str, support: SupportSet, tower: Backbone) -> tuple[Method, torch.Tensor]:
    """A method with random initial values, as fast as a trained one; and the support images."""
    chosen = methods.get(name)
    batch = load_batch(
        support.samples, Preprocess(tower.preprocess), classes=support.classes, normal_class=support.normal_class
    )
    method = chosen(tower, chosen.Config(epochs=0), classes=support.classes, normal_class=support.normal_class)
    method.fit(batch, seed=0)
    return method.eval(), batch.images


def rows_of(name: str, support: SupportSet, tower: Backbone, *, turns: int, naive: bool) -> list[Row]:
    """One row for each version of a method."""
    method, images = fitted(name, support, tower)
    form, script = FORMS[name]
    against = {"naive form: 77 positions for every image, a pass of the tower for everything read": (form, 2.0)}
    if not naive:
        against.clear()
    if script is not None:
        against["what its script does for every image"] = (script, None)
    rows = []
    for peer, (other, must) in against.items():
        with torch.no_grad():
            apart = max(difference(method.score(x), other(method, x)) for x in images[::SHOTS].split(1))
            seconds = in_turns(
                lambda: method.score(images[:1]), lambda call=other: call(method, images[:1]), turns=turns
            )
        if apart > NEAR:
            msg = f"{name} on {tower.name} and its form {other.__name__} differ by {apart:.1e}, more than {NEAR}"
            raise RuntimeError(msg)
        rows.append(
            compared(
                f"{name} predict, {tower.name}, batch 1", peer, seconds, kind="speedup", must=must, difference=apart
            )
        )
    return rows


def difference(a: Scores, b: Scores) -> float:
    """The largest difference of scores and maps, both in [0, 1]."""
    assert a.map is not None
    assert b.map is not None
    return max(float((a.score - b.score).abs().max()), float((a.map - b.map).abs().max()))


def main(argv: Sequence[str] | None = None) -> None:
    parser = arguments(__doc__)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--full", action="store_true", help=f"{PAPER}, too, and MVFA's naive form on every tower")
    args = parser.parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        write_dataset(Path(folder), n=24, size=256, shares=(1, 1, 1))
        support = ultraad.draw_support(folder, shots=SHOTS, seed=0)
        for name in ("embedded", LARGE, *((PAPER,) if args.full else ())):
            tower = ultraad.load_backbone(name)
            for method in FORMS:
                naive = method != "mvfa" or name == "embedded" or args.full
                rows += rows_of(method, support, tower, turns=args.turns, naive=naive)
            tower.cache.clear()
    finish(rows, args.output)


if __name__ == "__main__":
    main()
