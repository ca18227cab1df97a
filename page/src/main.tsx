/** The page's entry. */
import { render } from "preact";
import "./view/theme.css";

render(<p>SlimMoA</p>, document.getElementById("page")!);
