/** How much larger the text of the page is than at its smallest: 1 on a laptop, about 1.3 on a 4K screen. */
export const textUnit = (): number => parseFloat(getComputedStyle(document.documentElement).fontSize) / 15;
