// node componentize.mjs NODE_MODULES SOURCE WIT TARGET: makes a component out of a script.
import fs from "node:fs";
import path from "node:path";
import url from "node:url";

const [modules, source, wit, target] = process.argv.slice(2).map((name) => path.resolve(name));
const entry = path.join(modules, "@bytecodealliance/componentize-js/src/componentize.js");
const { componentize } = await import(url.pathToFileURL(entry));
const made = await componentize(fs.readFileSync(source, "utf8"), { witPath: wit, worldName: "hello" });
fs.writeFileSync(target, made.component);
