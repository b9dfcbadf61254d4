/* What the bench engine answers to GET: its health, its model and its counters, as vLLM names them. */
#ifndef BENCH_PROBES_H
#define BENCH_PROBES_H

#include "streams.h"

static inline void put_text(struct engine *engine, struct connection *connection, const char *status, const char *type,
                     const char *body) {
    char head[256];
    int length = snprintf(head, sizeof head, "HTTP/1.1 %s\r\ncontent-length: %zu\r\ncontent-type: %s\r\n\r\n", status,
                          strlen(body), type);
    if (!buffer_append(&connection->out, head, (size_t)length) ||
        !buffer_append(&connection->out, body, strlen(body)))
        hang_up(engine, connection);
}

static inline void answer_get(struct engine *engine, struct connection *connection, const char *target) {
    char body[2048];
    if (strncmp(target, "/health ", 8) == 0) {
        put_text(engine, connection, "200 OK", "text/plain", "");
    } else if (strncmp(target, "/v1/models ", 11) == 0) {
        snprintf(body, sizeof body,
                 "{\"object\":\"list\",\"data\":[{\"id\":\"%s\",\"object\":\"model\",\"created\":1700000000,"
                 "\"owned_by\":\"vllm\",\"root\":\"%s\",\"parent\":null,\"max_model_len\":1048576}]}",
                 engine->model, engine->model);
        put_text(engine, connection, "200 OK", "application/json", body);
    } else if (strncmp(target, "/metrics ", 9) == 0) {
        unsigned long long running = engine->requests - engine->finished - engine->hangups;
        snprintf(body, sizeof body,
                 "vllm:num_requests_running{engine=\"0\",model_name=\"%s\"} %llu\n"
                 "vllm:num_requests_waiting{engine=\"0\",model_name=\"%s\"} 0\n"
                 "vllm:kv_cache_usage_perc{engine=\"0\",model_name=\"%s\"} 0\n"
                 "vllm:prompt_tokens_total{engine=\"0\",model_name=\"%s\"} %llu\n"
                 "vllm:generation_tokens_total{engine=\"0\",model_name=\"%s\"} %llu\n",
                 engine->model, running, engine->model, engine->model, engine->model,
                 (unsigned long long)engine->prompt_tokens, engine->model,
                 (unsigned long long)engine->completion_tokens);
        put_text(engine, connection, "200 OK", "text/plain; version=0.0.4", body);
    } else {
        put_text(engine, connection, "404 Not Found", "application/json", "{\"detail\":\"Not Found\"}");
    }
}

#endif
