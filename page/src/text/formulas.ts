/** Formulas as MathML, by Temml. The page loads this file when it shows the first formula. */
import temml from "temml";

/** MathML of a formula in TeX; null if Temml cannot read the formula. */
export function mathml(tex: string, display: boolean): string | null {
  try {
    return temml.renderToString(tex, {
      displayMode: display,
      throwOnError: true,
      trust: false, // no links, classes or pictures
      maxExpand: 500,
      maxSize: [20, 20],
    });
  } catch {
    return null;
  }
}
