// Builds the page into serve_app/page/, or its tests into build/test/.
//     node build.mjs            the page; fails if it is larger than its limits
//     node build.mjs --compare  the same, but nothing is written: fails if serve_app/page/ holds something else
//     node build.mjs --tests    the tests, for `node --test`
import esbuild from "esbuild";
import { gzipSync } from "fflate";
import { mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const HERE = dirname(fileURLToPath(import.meta.url));
const OUT = join(HERE, "..", "serve_app", "page");
// What a browser may have to load, in bytes after compression: before the first view, and later in one go.
const FIRST_LOAD = 70_000;
const LAZY_PART = 100_000;

const common = { absWorkingDir: HERE, bundle: true, format: "esm", logLevel: "warning", legalComments: "none" };

function testFiles(folder) {
  return readdirSync(join(HERE, folder), { recursive: true })
    .filter((name) => /\.test\.tsx?$/.test(name))
    .map((name) => join(folder, name));
}

async function buildTests() {
  rmSync(join(HERE, "build"), { recursive: true, force: true });
  await esbuild.build({
    ...common,
    entryPoints: testFiles("test"),
    outdir: "build/test",
    outbase: "test",
    outExtension: { ".js": ".mjs" },
    platform: "node",
    target: "node20",
    sourcemap: "inline",
    loader: { ".css": "empty" },
    // A DOM for tests is far too much to bundle, and is found in node_modules.
    external: ["jsdom", "happy-dom", "linkedom"],
  });
}

function compressed(bytes) {
  // Not Node's zlib, whose output differs between processors: the built files are compared in CI.
  const packed = gzipSync(bytes, { level: 9, mtime: 0 });
  packed[9] = 255; // the operating system: unknown
  return packed;
}

/** The files that the entry loads before it runs: itself, and the chunks that it imports statically. */
function firstFiles(outputs, entry, seen = new Set()) {
  if (!seen.has(entry)) {
    seen.add(entry);
    for (const { path, kind } of outputs[entry].imports) {
      if (kind === "import-statement" && outputs[path]) firstFiles(outputs, path, seen);
    }
  }
  return seen;
}

// esbuild puts the styles of lazy parts into the first load. `src/late.css` has them instead.
const lateStyles = {
  name: "late-styles",
  setup(build) {
    build.onResolve({ filter: /\.css$/ }, ({ importer, path }) =>
      /[\\/]src[\\/](card|compare|waterfall)[\\/]/.test(importer) ? { path, namespace: "late-styles" } : undefined,
    );
    build.onLoad({ filter: /.*/, namespace: "late-styles" }, () => ({ contents: "", loader: "css" }));
  },
};

async function buildPage() {
  const { metafile, outputFiles } = await esbuild.build({
    ...common,
    entryPoints: { page: "src/main.tsx", late: "src/late.css" },
    outdir: "out",
    entryNames: "[name]-[hash]",
    chunkNames: "[name]-[hash]",
    assetNames: "[name]-[hash]",
    splitting: true,
    plugins: [lateStyles],
    minify: true,
    target: "es2022",
    metafile: true,
    write: false,
  });
  const outputs = metafile.outputs;
  const entry = Object.keys(outputs).find((path) => outputs[path].entryPoint === "src/main.tsx");
  const css = outputs[entry].cssBundle;
  const late = Object.keys(outputs).find((path) => outputs[path].entryPoint === "src/late.css");
  const name = (path) => path.slice(path.lastIndexOf("/") + 1);
  const html = readFileSync(join(HERE, "src", "index.html"), "utf8")
    .replace("{{js}}", name(entry))
    .replace("{{css}}", name(css))
    .replace("{{late}}", name(late));
  const files = new Map(outputFiles.map(({ path, contents }) => [name(path), contents]));
  // The styles of lazy parts come together in one file, not in one for each part.
  const styles = [css, late].map(name);
  for (const file of [...files.keys()]) if (file.endsWith(".css") && !styles.includes(file)) files.delete(file);
  files.set("index.html", new TextEncoder().encode(html));
  files.set("licences.txt", new TextEncoder().encode(licences(Object.keys(metafile.inputs))));

  const sizes = new Map();
  for (const [file, contents] of [...files]) {
    const packed = compressed(contents);
    sizes.set(file, packed.length);
    files.set(`${file}.gz`, packed);
  }
  (process.argv.includes("--compare") ? compare : write)(files);
  report(sizes, new Set(["index.html", name(css), ...[...firstFiles(outputs, entry)].map(name)]));
}

/** The licences of the libraries that are in the built files. Each of them wants its licence to go with it. */
function licences(inputs) {
  const folders = inputs.map((path) => /^node_modules\/(?:@[^/]+\/)?[^/]+/.exec(path)?.[0]).filter(Boolean);
  const texts = [...new Set(folders)].sort().map((folder) => {
    const { name, version, license } = JSON.parse(readFileSync(join(HERE, folder, "package.json"), "utf8"));
    const file = readdirSync(join(HERE, folder))
      .sort()
      .find((each) => /^licen[cs]e/i.test(each));
    return `${name} ${version}, ${license}\n\n${readFileSync(join(HERE, folder, file), "utf8").trim()}\n`;
  });
  return `The page holds parts of these libraries.\n\n${texts.join(`\n${"-".repeat(80)}\n\n`)}`;
}

function write(files) {
  rmSync(OUT, { recursive: true, force: true });
  mkdirSync(OUT, { recursive: true });
  for (const [file, contents] of files) writeFileSync(join(OUT, file), contents);
}

/** Fail unless the committed files are these. */
function compare(files) {
  const committed = new Set(readdirSync(OUT));
  const differs = [...files].filter(
    ([file, contents]) => !committed.has(file) || !readFileSync(join(OUT, file)).equals(contents),
  );
  const names = [...differs.map(([file]) => file), ...[...committed].filter((file) => !files.has(file))];
  if (names.length === 0) return;
  console.error(
    `serve_app/page/ is not what page/ builds; run "npm run build" in page/ and commit: ${names.join(", ")}`,
  );
  process.exit(1);
}

function report(sizes, first) {
  let total = 0;
  const problems = [];
  for (const [file, size] of sizes) {
    if (first.has(file)) total += size;
    else if (size > LAZY_PART) problems.push(`${file} has ${size} bytes; a lazy part may have ${LAZY_PART}`);
    console.log(`${String(size).padStart(7)}  ${first.has(file) ? "first" : "lazy "}  ${file}`);
  }
  console.log(`${String(total).padStart(7)}  bytes of the first load after compression; the limit is ${FIRST_LOAD}`);
  if (total > FIRST_LOAD) problems.push(`the first load has ${total} bytes; it may have ${FIRST_LOAD}`);
  for (const problem of problems) console.error(problem);
  if (problems.length) process.exit(1);
}

await (process.argv.includes("--tests") ? buildTests() : buildPage());
