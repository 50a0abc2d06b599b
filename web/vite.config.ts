import { createHash } from "node:crypto";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join, relative, sep } from "node:path";
import { defineConfig, type Plugin } from "vite";

const ROOT = import.meta.dirname;
const SOURCES = ["index.html", "review.html", "package.json", "package-lock.json", "public", "src", "tsconfig.json", "vite.config.ts"];

/** Every file the build depends on, as paths with "/", sorted. tests/e2e/test_build.py computes the same hash. */
function sources(path: string): string[] {
  if (statSync(path).isFile()) return [relative(ROOT, path).split(sep).join("/")];
  return readdirSync(path).flatMap((name) => sources(join(path, name)));
}

function hash(): string {
  const sum = createHash("sha256");
  for (const name of SOURCES.flatMap((entry) => sources(join(ROOT, entry))).sort()) {
    sum.update(`${name}\0`).update(readFileSync(join(ROOT, name))).update("\0");
  }
  return sum.digest("hex");
}

/** Writes the hash of the sources beside the build, so that a test notices a build older than its source. */
function stamp(): Plugin {
  return {
    name: "stamp",
    apply: "build",
    generateBundle() {
      this.emitFile({ type: "asset", fileName: "build.json", source: `${JSON.stringify({ sources: hash() })}\n` });
    },
  };
}

export default defineConfig({
  plugins: [stamp()],
  build: {
    outDir: "../src/ultraad/serve/static",
    emptyOutDir: true,
    target: "es2022",
    assetsInlineLimit: 0, // the content security policy allows no data: addresses
    cssCodeSplit: false,
    modulePreload: false,
    rolldownOptions: {
      input: { page: join(ROOT, "index.html"), review: join(ROOT, "review.html") },
      output: { entryFileNames: "assets/[name].js", assetFileNames: "assets/page[extname]" },
    },
  },
});
