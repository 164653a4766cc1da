// The types hold: a change in openapi.yaml does not compile until password-reset.ts and form.ts follow.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import openapiTS, { astToString } from "openapi-typescript";
import ts from "typescript";

// The compiled test is in dist/test.
const client = new URL("../../", import.meta.url);
const spec = await readFile(new URL("../../../openapi.yaml", client), "utf8");

// The declarations of libraries never change, and take most of the time.
const parsed = new Map<string, ts.SourceFile | undefined>();

/** Returns what tsc says about the client with this openapi.yaml. */
async function compile(changed: string): Promise<string[]> {
	const schema = astToString(await openapiTS(changed));
	const config = ts.getParsedCommandLineOfConfigFile(fileURLToPath(new URL("tsconfig.json", client)), { noEmit: true }, {
		...ts.sys,
		onUnRecoverableConfigFileDiagnostic: (diagnostic) => assert.fail(ts.flattenDiagnosticMessageText(diagnostic.messageText, "\n")),
	});
	assert.ok(config);
	const host = ts.createCompilerHost(config.options);
	const readSource = host.getSourceFile.bind(host);
	host.getSourceFile = (name, options, ...rest) => {
		if (name.endsWith("/client/schema.d.ts")) {
			return ts.createSourceFile(name, schema, options);
		}
		if (!parsed.has(name)) {
			parsed.set(name, readSource(name, options, ...rest));
		}
		return parsed.get(name);
	};
	const program = ts.createProgram(config.fileNames, config.options, host);
	return program.getSourceFiles().filter(({ fileName }) => fileName.includes("/client/")).flatMap((file) => [
		...program.getSyntacticDiagnostics(file),
		...program.getSemanticDiagnostics(file),
	]).map(
		({ file, messageText }) => `${file?.fileName.split("/").at(-1)}: ${ts.flattenDiagnosticMessageText(messageText, " ")}`,
	);
}

function replace(pattern: RegExp, by: string): string {
	const changed = spec.replace(pattern, by);
	assert.notEqual(changed, spec, `openapi.yaml has no ${pattern}`);
	return changed;
}

test("openapi.yaml as it is", async () => {
	assert.deepEqual(await compile(spec), []);
});

describe("openapi.yaml with", () => {
	for (const { name, changed, complaint } of [
		{
			name: "a status that is handled nowhere",
			changed: replace(/( +)'429':\n/, (`$1'418':\n$1  description: A teapot\n$1  content:\n$1    application/json:\n$1      schema:\n$1        $ref: '#/components/schemas/ErrorBody'\n$&`)),
			complaint: /^password-reset\.ts: Property '418' is missing/,
		},
		{
			name: "a status less",
			changed: replace(/( +)'415':\n[^]*?(?=\1'\d)/, ""),
			complaint: /^password-reset\.ts: .*'415' does not exist/,
		},
		{
			name: "a field that has another name",
			changed: replace(/( {8})email:\n/, "$1address:\n").replace("required: [email]", "required: [address]"),
			complaint: /^password-reset\.ts: .*'email' does not exist/,
		},
		{
			name: "a field more",
			changed: replace(/( {8})callback_origin:\n/, "$1language:\n$1  type: string\n$&"),
			complaint: /^password-reset\.ts: Property 'language' is missing/,
		},
		{
			name: "a message that has another name",
			changed: replace(/required: \[ok, message\]/, "required: [ok, text]").replace(/(Acknowledgment:\n[^]*?\n {8})message:/, "$1text:"),
			complaint: /^password-reset\.ts: Property 'message' does not exist/,
		},
		{
			name: "no wait in the header",
			changed: spec.replaceAll("Retry-After:", "Try-Again-After:"),
			complaint: /^password-reset\.ts: .*"Retry-After"/,
		},
		{
			name: "a wait that is text",
			changed: spec.replaceAll(/(retryAfter:\n +type: )number/g, "$1string"),
			complaint: /^password-reset\.ts: .*'string' is not assignable/,
		},
		{
			name: "the operation elsewhere",
			changed: replace(/\/auth\/send-password-reset:/, "/auth/recover:"),
			complaint: /^password-reset\.ts: .*"\/auth\/send-password-reset"/,
		},
	]) {
		test(`${name} does not compile`, async () => {
			const complaints = await compile(changed);
			assert.ok(complaints.some((text) => complaint.test(text)), complaints.join("\n") || "it compiled");
		});
	}
});
