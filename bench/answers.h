/* The bytes the bench engine answers with, shaped as vLLM's.
 *
 * Every piece is rendered once at start and only its moving digits (request number, timestamp, token counts) are
 * patched afterwards, all of fixed width, so that the engine's own cost stays far below that of any gateway in front.
 */
#ifndef BENCH_ANSWERS_H
#define BENCH_ANSWERS_H

#include "wire.h"

#define ID_DIGITS 20
#define COUNT_DIGITS 9
#define PIECE_BYTES_MAX 2048

/* One rendered piece and the offsets of its moving digits (0: it has none). */
struct piece {
    char text[PIECE_BYTES_MAX];
    size_t length;
    size_t id_at, stamp_at;
    size_t prompt_at, completion_at, total_at;
};

struct answers {
    struct piece role, content, finish, usage, done; /* one HTTP chunk each, the last also ends the body */
    struct piece stream_head;
    struct piece whole; /* head and body of a non-streaming answer */
};

static inline void put_digits(char *at, uint64_t value, int digits) {
    for (int i = digits - 1; i >= 0; i--, value /= 10) at[i] = (char)('0' + value % 10);
}

static inline size_t offset_of(const struct piece *piece, const char *mark) {
    const char *found = strstr(piece->text, mark);
    return found ? (size_t)(found - piece->text) + strlen(mark) : 0;
}

/* JSON numbers must not start with a zero, so counts are padded with spaces on the left instead. */
static inline void put_count(char *at, uint64_t value) {
    char digits[COUNT_DIGITS + 1];
    snprintf(digits, sizeof digits, "%*u", COUNT_DIGITS, (unsigned)(value % 1000000000u));
    memcpy(at, digits, COUNT_DIGITS);
}

static inline void locate(struct piece *piece) {
    piece->length = strlen(piece->text);
    piece->id_at = offset_of(piece, "\"id\":\"chatcmpl-");
    piece->stamp_at = offset_of(piece, STAMP_MARK);
    piece->prompt_at = offset_of(piece, "\"prompt_tokens\":");
    piece->completion_at = offset_of(piece, "\"completion_tokens\":");
    piece->total_at = offset_of(piece, "\"total_tokens\":");
}

static inline void render_chunk(struct piece *piece, const char *model, const char *rest) {
    char json[PIECE_BYTES_MAX / 2];
    int length = snprintf(json, sizeof json,
                          "data: {\"id\":\"chatcmpl-%0*d\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,"
                          "\"model\":\"%s\",%s}\n\n",
                          ID_DIGITS, 0, model, rest);
    if (length < 0 || (size_t)length >= sizeof json) die("the model name is too long");
    snprintf(piece->text, sizeof piece->text, "%x\r\n%s\r\n", (unsigned)length, json);
    locate(piece);
}

static inline void render_answers(struct answers *answers, const char *model) {
    char rest[PIECE_BYTES_MAX / 4], body[PIECE_BYTES_MAX / 2];
    render_chunk(&answers->role, model,
                 "\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,"
                 "\"finish_reason\":null}]");
    snprintf(rest, sizeof rest,
             "\"choices\":[{\"index\":0,\"delta\":{\"content\":\"" STAMP_MARK "%0*d \"},\"logprobs\":null,"
             "\"finish_reason\":null}]",
             STAMP_DIGITS, 0);
    render_chunk(&answers->content, model, rest);
    render_chunk(&answers->finish, model,
                 "\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\"},\"logprobs\":null,\"finish_reason\":\"stop\","
                 "\"stop_reason\":null}]");
    snprintf(rest, sizeof rest,
             "\"choices\":[],\"usage\":{\"prompt_tokens\":%9d,\"total_tokens\":%9d,\"completion_tokens\":%9d}", 0, 0,
             0);
    render_chunk(&answers->usage, model, rest);
    strcpy(answers->done.text, "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n");
    locate(&answers->done);
    strcpy(answers->stream_head.text,
           "HTTP/1.1 200 OK\r\nserver: uvicorn\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
           "transfer-encoding: chunked\r\n\r\n");
    locate(&answers->stream_head);
    int length = snprintf(body, sizeof body,
                          "{\"id\":\"chatcmpl-%0*d\",\"object\":\"chat.completion\",\"created\":1700000000,"
                          "\"model\":\"%s\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":"
                          "\"The water level behind the gate is steady.\",\"refusal\":null,\"tool_calls\":[]},"
                          "\"logprobs\":null,\"finish_reason\":\"stop\",\"stop_reason\":null}],"
                          "\"service_tier\":null,\"system_fingerprint\":null,"
                          "\"usage\":{\"prompt_tokens\":%9d,\"total_tokens\":%9d,\"completion_tokens\":%9d,"
                          "\"prompt_tokens_details\":null},\"prompt_logprobs\":null,\"kv_transfer_params\":null}",
                          ID_DIGITS, 0, model, 0, 0, 0);
    snprintf(answers->whole.text, sizeof answers->whole.text,
             "HTTP/1.1 200 OK\r\nserver: uvicorn\r\ncontent-length: %d\r\ncontent-type: application/json\r\n\r\n%s",
             length, body);
    locate(&answers->whole);
}

/* Appends a copy of `piece` with its moving digits set; false when `out` is full. */
static inline bool put_piece(struct buffer *out, const struct piece *piece, uint64_t id, uint64_t prompt_tokens,
                             uint64_t completion_tokens) {
    size_t start = out->length;
    if (!buffer_append(out, piece->text, piece->length)) return false;
    char *copy = out->data + start;
    if (piece->id_at) put_digits(copy + piece->id_at, id, ID_DIGITS);
    if (piece->stamp_at) put_digits(copy + piece->stamp_at, now_ns(), STAMP_DIGITS);
    if (piece->prompt_at) {
        put_count(copy + piece->prompt_at, prompt_tokens);
        put_count(copy + piece->completion_at, completion_tokens);
        put_count(copy + piece->total_at, prompt_tokens + completion_tokens);
    }
    return true;
}

#endif
