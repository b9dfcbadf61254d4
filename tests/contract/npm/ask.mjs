// One piece of work of the AI SDK through a gateway, as an application would do it. The job is JSON in the first
// argument, the outcome is one line of JSON: what the application saw, and each answer that came with its time.
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, jsonSchema, stepCountIs, streamText, tool } from "ai";

const job = JSON.parse(process.argv[2]);
const answers = [];
const provider = createOpenAICompatible({
  name: "penstock",
  baseURL: job.base_url,
  apiKey: job.key,
  includeUsage: true,
  fetch: async (url, options) => {
    const asked_ms = Date.now();
    const response = await fetch(url, options);
    answers.push({
      asked_ms,
      answered_ms: Date.now(),
      status: response.status,
      request_id: response.headers.get("x-request-id"),
      retry_after_ms: response.headers.get("retry-after-ms"),
    });
    return response;
  },
});

const hangUp = new AbortController();
const settings = {
  model: provider(job.model),
  prompt: job.prompt,
  maxRetries: job.retries ?? 2,
  stopWhen: stepCountIs(4),
  abortSignal: hangUp.signal,
  tools: job.tool && {
    [job.tool]: tool({
      description: "looks something up",
      inputSchema: jsonSchema({ type: "object", properties: { query: { type: "string" } }, required: ["query"] }),
      execute: async ({ query }) => `found ${query}`,
    }),
  },
  providerOptions: { penstock: job.fields ?? {} },
};

async function streamed() {
  let failure = null;
  let pieces = 0;
  const result = streamText({ ...settings, onError: ({ error }) => (failure = error) });
  for await (const part of result.fullStream) {
    if (part.type === "text-delta" && ++pieces === job.hang_up_after) hangUp.abort();
    if (part.type === "abort") return { aborted: true, pieces };
  }
  if (failure !== null) throw failure;
  return outcomeOf({ text: await result.text, steps: await result.steps, usage: await result.totalUsage }, pieces);
}

function outcomeOf(result, pieces) {
  return {
    text: result.text,
    pieces,
    steps: result.steps.map((step) => ({
      finish: step.finishReason,
      calls: step.toolCalls.map((call) => [call.toolName, call.input]),
      results: step.toolResults.map((found) => found.output),
    })),
    usage: result.usage,
    reasoning: result.steps.map((step) => step.reasoningText ?? null),
  };
}

async function whole() {
  const result = await generateText(settings);
  return outcomeOf({ text: result.text, steps: result.steps, usage: result.totalUsage ?? result.usage }, null);
}

let outcome;
try {
  outcome = await (job.stream ? streamed() : whole());
} catch (error) {
  const last = error.lastError ?? error;
  outcome = { error: { name: error.name, message: last.message, status: last.statusCode ?? null } };
}
console.log(JSON.stringify({ ...outcome, answers }));
