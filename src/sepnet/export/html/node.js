/* node node.js PAGE COUNT: runs the network of a page on images from standard input, in base64. */
const fs = require("node:fs");
const path = require("node:path");
const vm = require("node:vm");

const [page, count] = process.argv.slice(2);
const text = fs.readFileSync(page, "utf8");
const inside = (start) => text.split(start)[1].split("</script>")[0];
vm.runInThisContext(inside('<script id="network">'));
vm.runInThisContext(fs.readFileSync(path.join(__dirname, "answer.js"), "utf8"));
const logits = openNetwork(JSON.parse(inside('<script id="description" type="application/json">')));
process.stdout.write(JSON.stringify(answer(logits, fs.readFileSync(0, "latin1"), Number(count))));
