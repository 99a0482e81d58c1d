// Holds a run of the suite against docs/http-conformance.md: which required tests pass, and
// whether those that do not are the ones that the page lists.
//
//   node judge.mjs SUITE_DIR RESULTS.json PAGE.md AGE
//
// AGE is what the edge took an unclear Age for, "ignore" or "stale": some rows hold for one alone.
//
// A test counts as passed when it passed, and so did every test that it depends on, as the
// suite's own page counts. Prints a report; exits with 1 when the page and the run differ.
import { readFileSync, writeFileSync } from 'node:fs'
import { pathToFileURL } from 'node:url'
import { resolve } from 'node:path'

const [suiteDir, resultsFile, pageFile, age] = process.argv.slice(2)

async function load (path) {
  return (await import(pathToFileURL(resolve(suiteDir, path)))).default
}

const suites = [...await load('tests/index.mjs'), await load('tests/surrogate-control.mjs')]
const tests = new Map(suites.flatMap(suite => suite.tests).map(test => [test.id, test]))
const results = JSON.parse(readFileSync(resultsFile, 'utf8'))

function passes (id) {
  const needs = tests.get(id).depends_on ?? []
  return results[id] === true && needs.every(passes)
}

function why (id) {
  if (results[id] === undefined) return 'not run'
  if (results[id] === true) return 'a test that it depends on fails'
  return results[id].join(': ')
}

// The rows between the marks of the page: | `id` | always, or only with that AGE | reason |
function listed (page) {
  const [, rest] = page.split('<!-- failures: begin -->')
  const [table] = (rest ?? '').split('<!-- failures: end -->')
  const rows = [...table.matchAll(/^\| `([^`]+)` \| (\w+) \|/gm)]
  return new Set(rows.filter(([, , when]) => when === 'always' || when === age).map(row => row[1]))
}

const counts = {}
const failures = []
for (const [id, test] of tests) {
  if (test.browser_only === true) continue
  const kind = test.kind ?? 'required'
  counts[kind] ??= { passed: 0, total: 0 }
  counts[kind].total++
  if (passes(id)) counts[kind].passed++
  else failures.push({ id, kind, name: test.name, why: why(id) })
}
for (const [kind, { passed, total }] of Object.entries(counts)) {
  console.log(`unclear_age = "${age}": ${kind}: ${passed} of ${total}`)
}
for (const kind of ['required', 'optimal']) {
  for (const failure of failures.filter(failure => failure.kind === kind)) {
    console.log(`  ${kind} ${failure.id}: ${failure.why}`)
  }
}
writeFileSync(resultsFile.replace(/\.json$/, '-summary.json'),
  JSON.stringify({ suite: 'http-cache-tests 0.4.5', counts, failures }, null, 2) + '\n')

const expected = listed(readFileSync(pageFile, 'utf8'))
const found = new Set(failures.filter(failure => failure.kind === 'required').map(({ id }) => id))
const surprises = [...found].filter(id => !expected.has(id))
const outdated = [...expected].filter(id => !found.has(id))
surprises.forEach(id => console.error(`${id} fails, and ${pageFile} does not say why`))
outdated.forEach(id => console.error(`${id} passes, and ${pageFile} lists it as failing`))
process.exit(surprises.length + outdated.length > 0 ? 1 : 0)
