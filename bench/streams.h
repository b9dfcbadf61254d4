/* The bench engine's connections: what each one is doing, when it is due, and how it is written to and closed.
 *
 * Deadlines stand in a binary heap; flat-out streams use the same heap with a deadline of "just after now", which makes
 * them take turns.
 */
#ifndef BENCH_STREAMS_H
#define BENCH_STREAMS_H

#include "answers.h"

#define CONNECTIONS_MAX 16384

enum phase { READING, WAITING };

struct connection {
    int fd;
    enum phase phase;
    bool dead, streams, watches_out;
    size_t heap_at; /* place in the heap of deadlines plus one; 0: not in it */
    uint64_t due_ns, id, prompt_tokens;
    unsigned chunks_sent;
    size_t head_length, body_length; /* of the request being read; 0 until its head is complete */
    size_t out_sent;
    struct buffer in, out;
    struct connection *next_dead;
};

struct engine {
    int epoll, listener, timer;
    uint64_t first_token_ns, chunk_ns, armed_ns;
    unsigned chunks, chunks_per_write;
    bool lockstep;
    const char *model;
    struct answers answers;
    struct connection *heap[CONNECTIONS_MAX];
    size_t heap_length, connections;
    struct connection *dead;
    uint64_t requests, streams, chunks_total, finished, hangups, refused, prompt_tokens, completion_tokens;
};

static inline void heap_place(struct engine *engine, struct connection *connection, size_t at) {
    engine->heap[at] = connection;
    connection->heap_at = at + 1;
}

/* Restores the heap's order around place `at` after what stands there has changed. */
static inline void heap_fix(struct engine *engine, size_t at) {
    struct connection *moving = engine->heap[at];
    while (at > 0 && engine->heap[(at - 1) / 2]->due_ns > moving->due_ns) {
        heap_place(engine, engine->heap[(at - 1) / 2], at);
        at = (at - 1) / 2;
    }
    for (size_t child; (child = 2 * at + 1) < engine->heap_length; at = child) {
        if (child + 1 < engine->heap_length && engine->heap[child + 1]->due_ns < engine->heap[child]->due_ns) child++;
        if (engine->heap[child]->due_ns >= moving->due_ns) break;
        heap_place(engine, engine->heap[child], at);
    }
    heap_place(engine, moving, at);
}

static inline void schedule(struct engine *engine, struct connection *connection, uint64_t due_ns) {
    connection->due_ns = due_ns;
    heap_place(engine, connection, engine->heap_length++);
    heap_fix(engine, engine->heap_length - 1);
}

static inline void unschedule(struct engine *engine, struct connection *connection) {
    if (!connection->heap_at) return;
    size_t at = connection->heap_at - 1;
    connection->heap_at = 0;
    struct connection *last = engine->heap[--engine->heap_length];
    if (last == connection) return;
    heap_place(engine, last, at);
    heap_fix(engine, at);
}

/* Closes at once but frees only after the event batch, which may still name this connection. */
static inline void hang_up(struct engine *engine, struct connection *connection) {
    if (connection->dead) return;
    if (connection->phase == WAITING) engine->hangups++;
    unschedule(engine, connection);
    close(connection->fd);
    connection->dead = true;
    connection->next_dead = engine->dead;
    engine->dead = connection;
    engine->connections--;
}

static inline void bury(struct engine *engine) {
    while (engine->dead) {
        struct connection *connection = engine->dead;
        engine->dead = connection->next_dead;
        buffer_free(&connection->in);
        buffer_free(&connection->out);
        free(connection);
    }
}

/* Writes what waits. Returns true when all of it is gone; else EPOLLOUT resumes it, so nothing piles up here. */
static inline bool flush(struct engine *engine, struct connection *connection) {
    while (connection->out_sent < connection->out.length) {
        ssize_t sent = send(connection->fd, connection->out.data + connection->out_sent,
                            connection->out.length - connection->out_sent, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) continue;
        if (sent < 0 && errno != EAGAIN) {
            hang_up(engine, connection);
            return false;
        }
        if (sent < 0) {
            if (!connection->watches_out)
                watch(engine->epoll, EPOLL_CTL_MOD, connection->fd, EPOLLIN | EPOLLRDHUP | EPOLLOUT, connection);
            connection->watches_out = true;
            return false;
        }
        connection->out_sent += (size_t)sent;
    }
    connection->out.length = connection->out_sent = 0;
    if (connection->watches_out) watch(engine->epoll, EPOLL_CTL_MOD, connection->fd, EPOLLIN | EPOLLRDHUP, connection);
    connection->watches_out = false;
    return true;
}

#endif
