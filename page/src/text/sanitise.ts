/**
 * The only way from HTML to elements on the page: what is not named here is left out.
 *
 * DOMPurify works under the page's Trusted Types; its policy has the name `dompurify`, as the page's
 * Content-Security-Policy wants. Style attributes never get through, because the policy forbids them.
 */
import DOMPurify, { type Config } from "dompurify";

const TAGS = [
  ..."a b blockquote br code del em h3 h4 h5 h6 hr i kbd li mark ol p pre s small span strong sub sup".split(" "),
  ..."table tbody td th thead tr u ul".split(" "),
];
const TEXT: Config = {
  ALLOWED_TAGS: TAGS,
  ALLOWED_ATTR: ["align", "class", "href", "start", "title"],
  ALLOWED_URI_REGEXP: /^(?:https?:\/\/|mailto:)/i,
  // DOMPurify holds every other attribute to the pattern of addresses.
  ADD_URI_SAFE_ATTR: ["align", "start"],
  ALLOW_ARIA_ATTR: false,
  ALLOW_DATA_ATTR: false,
};
const FORMULA: Config = {
  USE_PROFILES: { mathMl: true },
  ADD_ATTR: ["data-style"],
  ADD_URI_SAFE_ATTR: ["data-style"],
  // Colours of a text could be those of the ground: it is shown in the page's own.
  FORBID_ATTR: ["mathcolor", "mathbackground", "href", "xlink:href", "style", "id", "name"],
  ALLOW_ARIA_ATTR: false,
  ALLOW_DATA_ATTR: false,
};
/** Style properties that a formula may set, and what their values may look like. */
const STYLES =
  /^(?:border(?:-(?:top|right|bottom|left))?(?:-(?:style|width))?|font-weight|font-size|height|margin(?:-(?:left|right|top|bottom))?|math-depth|min-width|padding(?:-(?:left|right|top|bottom))?|text-align|vertical-align|width)$/;
const VALUE = /^[\w\s#.%+(),-]{1,80}$/;

/** Elements of a text's HTML. Links open in a tab of their own and tell the other side nothing of this page. */
export function textElements(html: string): DocumentFragment {
  const fragment = DOMPurify.sanitize(html, { ...TEXT, RETURN_DOM_FRAGMENT: true });
  for (const link of fragment.querySelectorAll("a")) {
    link.target = "_blank";
    link.rel = "noopener noreferrer";
  }
  return fragment;
}

/**
 * Elements of a formula's MathML. Its styles are moved through the sanitiser under another name and set one by
 * one, which the page's policy allows, where it would report a style attribute.
 */
export function formulaElements(mathml: string): DocumentFragment {
  const renamed = mathml.replace(/ style="/g, ' data-style="');
  const fragment = DOMPurify.sanitize(renamed, { ...FORMULA, RETURN_DOM_FRAGMENT: true });
  for (const element of fragment.querySelectorAll<MathMLElement>("[data-style]")) {
    for (const [property, value] of declarations(element.getAttribute("data-style") ?? "")) {
      element.style?.setProperty(property, value); // older browsers know no styles of formulas
    }
    element.removeAttribute("data-style");
  }
  return fragment;
}

/** The allowed declarations of a style attribute. */
export function declarations(style: string): [string, string][] {
  return style
    .split(";")
    .map((declaration): [string, string] => {
      const colon = declaration.indexOf(":");
      return [declaration.slice(0, colon).trim().toLowerCase(), declaration.slice(colon + 1).trim()];
    })
    .filter(([property, value]) => STYLES.test(property) && VALUE.test(value) && !/url|expression/i.test(value));
}
