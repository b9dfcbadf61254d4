/* Reads one HTTP/1.1 answer as it arrives, whole or as server-sent events, split anywhere.
 *
 * The load client must not believe a proxy: an answer only counts as complete when its framing is (content-length
 * reached, or the last chunk seen) and, for a stream, when the finish chunk and [DONE] went by.
 */
#ifndef BENCH_RESPONSE_H
#define BENCH_RESPONSE_H

#include "wire.h"

#define BODY_BYTES_KEPT (256u << 10)
#define LINE_BYTES_MAX 32

enum part { HEAD, FIXED_BODY, CHUNK_SIZE, CHUNK_DATA, CHUNK_END, TRAILER, COMPLETE, BROKEN };

struct response {
    enum part part;
    int status;
    bool closes, events; /* `connection: close` was sent; the body is an event stream */
    bool finished, done, failed; /* a finish_reason, [DONE], an error event went by */
    uint64_t remaining; /* bytes left of the body or of this chunk */
    uint64_t content_chunks, body_bytes;
    struct buffer head, body; /* body: of an event stream, only the line that is not complete yet */
    char line[LINE_BYTES_MAX];
    size_t line_length;
};

/* Called for each content chunk with the engine's clock when it was composed. */
typedef void (*on_content)(void *context, uint64_t stamped_ns);

static inline void response_reset(struct response *response) {
    struct buffer head = response->head, body = response->body;
    head.length = body.length = 0;
    *response = (struct response){.head = head, .body = body};
}

static inline void read_line(struct response *response, const char *line, size_t length, on_content report,
                             void *context) {
    const char *mark = memmem(line, length, STAMP_MARK, sizeof STAMP_MARK - 1);
    if (mark && (size_t)(line + length - mark) > sizeof STAMP_MARK - 1 + STAMP_DIGITS) {
        uint64_t stamped_ns = 0;
        mark += sizeof STAMP_MARK - 1;
        for (int i = 0; i < STAMP_DIGITS; i++) stamped_ns = stamped_ns * 10 + (uint64_t)(mark[i] - '0');
        response->content_chunks++;
        report(context, stamped_ns);
    } else if (length > 14 && memcmp(line, "data: {\"error\"", 14) == 0) {
        response->failed = true;
        response->head.length = 0; /* kept in place of the head, which is no longer needed, to be shown */
        buffer_append(&response->head, line, length);
    } else if (memmem(line, length, "[DONE]", 6)) {
        response->done = true;
    } else if (memmem(line, length, "\"finish_reason\":\"stop\"", 22)) {
        response->finished = true;
    }
}

static inline bool read_body(struct response *response, const char *data, size_t length, on_content report,
                             void *context) {
    response->body_bytes += length;
    if (!response->events) {
        size_t room = BODY_BYTES_KEPT - response->body.length;
        return buffer_append(&response->body, data, length < room ? length : room);
    }
    while (length) {
        const char *newline = memchr(data, '\n', length);
        size_t taken = newline ? (size_t)(newline - data) + 1 : length;
        if (newline && response->body.length == 0) {
            if (taken > 1) read_line(response, data, taken, report, context);
        } else {
            if (response->body.length + taken > BODY_BYTES_KEPT) return false;
            buffer_append(&response->body, data, taken);
            if (newline) {
                read_line(response, response->body.data, response->body.length, report, context);
                response->body.length = 0;
            }
        }
        data += taken;
        length -= taken;
    }
    return true;
}

static inline void end_head(struct response *response) {
    const char *head = response->head.data, *value;
    size_t length = response->head.length;
    if (length < 13 || memcmp(head, "HTTP/1.1 ", 9) != 0) {
        response->part = BROKEN;
        return;
    }
    response->status = atoi(head + 9);
    response->closes = (value = header_value(head, length, "connection:")) && strncasecmp(value, "close", 5) == 0;
    response->events = response->status == 200 && (value = header_value(head, length, "content-type:")) &&
                       strncasecmp(value, "text/event-stream", 17) == 0;
    if ((value = header_value(head, length, "transfer-encoding:")) && strncasecmp(value, "chunked", 7) == 0) {
        response->part = CHUNK_SIZE;
    } else if ((value = header_value(head, length, "content-length:"))) {
        response->remaining = strtoull(value, NULL, 10);
        response->part = response->remaining ? FIXED_BODY : COMPLETE;
    } else {
        response->part = BROKEN; /* a body that only the closing of the socket ends cannot be told from a cut one */
    }
}

/* Takes bytes up to the end of a line into `line`; returns true when the line is complete. */
static inline bool take_line(struct response *response, const char **data, const char *end) {
    while (*data < end) {
        char byte = *(*data)++;
        if (byte == '\n') {
            response->line[response->line_length] = 0;
            response->line_length = 0;
            return true;
        }
        if (byte != '\r' && response->line_length < LINE_BYTES_MAX - 1) response->line[response->line_length++] = byte;
    }
    return false;
}

static inline const char *feed_head(struct response *response, const char *data, const char *end) {
    size_t before = response->head.length, length = (size_t)(end - data);
    if (before + length > HEAD_BYTES_MAX + BODY_BYTES_KEPT || !buffer_append(&response->head, data, length)) {
        response->part = BROKEN;
        return end;
    }
    size_t from = before > 3 ? before - 3 : 0;
    const char *found = memmem(response->head.data + from, response->head.length - from, "\r\n\r\n", 4);
    if (!found) {
        if (response->head.length > HEAD_BYTES_MAX) response->part = BROKEN;
        return end;
    }
    size_t head_length = (size_t)(found - response->head.data) + 4;
    response->head.length = head_length;
    end_head(response);
    return data + (head_length - before);
}

/* Feeds what was received; returns how much of it was used (all, unless the answer ended before). */
static inline size_t response_feed(struct response *response, const char *start, size_t length, on_content report,
                                   void *context) {
    const char *data = start, *end = start + length;
    while (data < end && response->part < COMPLETE) {
        size_t available = (size_t)(end - data);
        switch (response->part) {
        case HEAD: data = feed_head(response, data, end); break;
        case CHUNK_SIZE:
            if (!take_line(response, &data, end)) break;
            response->remaining = strtoull(response->line, NULL, 16);
            response->part = response->remaining ? CHUNK_DATA : TRAILER;
            break;
        case FIXED_BODY:
        case CHUNK_DATA:
            if (available > response->remaining) available = (size_t)response->remaining;
            if (!read_body(response, data, available, report, context)) response->part = BROKEN;
            data += available;
            response->remaining -= available;
            if (response->remaining == 0 && response->part != BROKEN)
                response->part = response->part == FIXED_BODY ? COMPLETE : CHUNK_END;
            break;
        case CHUNK_END:
            if (take_line(response, &data, end)) response->part = CHUNK_SIZE;
            break;
        case TRAILER:
            if (take_line(response, &data, end) && response->line[0] == 0) response->part = COMPLETE;
            break;
        default: break;
        }
    }
    return (size_t)(data - start);
}

#endif
