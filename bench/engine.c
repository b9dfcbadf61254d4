/* A flat-out OpenAI-compatible engine for benchmarks: one thread, epoll, keep-alive.
 *
 * It answers POST /v1/chat/completions as vLLM would, whole or as a stream of chunks, after a set time to the first
 * token and at a set pace (0: as fast as the socket takes them). Each content chunk is a write of its own, as an
 * engine's are (unless --chunks-per-write says otherwise: one system call each is what limits a flat-out engine), and
 * carries the monotonic clock in ns, from which the load client computes transit times. GET /health, /v1/models and
 * /metrics (vLLM's names, true counters) keep a gateway's probes and scrapes content. On SIGTERM or SIGINT it prints
 * its counters as one JSON object and ends.
 */
#include "probes.h"
#include <getopt.h>
#include <signal.h>

#define PROMPT_BYTES_PER_TOKEN 4
#define WHOLE_COMPLETION_TOKENS 9

static volatile sig_atomic_t stopping;

static void stop(int signal_number) {
    (void)signal_number;
    stopping = 1;
}

/* A string in JSON cannot hold an unescaped quote, so `"stream":` is a key wherever it stands. */
static bool wants_stream(const char *body, size_t length) {
    const char *end = body + length, *at = memmem(body, length, "\"stream\":", 9);
    if (!at) return false;
    for (at += 9; at < end && *at == ' ';) at++;
    return at < end && *at == 't';
}

static void finish(struct engine *engine, struct connection *connection, uint64_t completion_tokens) {
    connection->phase = READING;
    engine->finished++;
    engine->prompt_tokens += connection->prompt_tokens;
    engine->completion_tokens += completion_tokens;
}

static void put_next_chunk(struct engine *engine, struct connection *connection) {
    const struct answers *answers = &engine->answers;
    struct buffer *out = &connection->out;
    uint64_t id = connection->id, prompt = connection->prompt_tokens;
    bool fits = true;
    if (connection->chunks_sent == 0)
        fits = put_piece(out, &answers->stream_head, id, 0, 0) && put_piece(out, &answers->role, id, 0, 0);
    fits = fits && put_piece(out, &answers->content, id, 0, 0);
    engine->chunks_total++;
    if (++connection->chunks_sent == engine->chunks) {
        fits = fits && put_piece(out, &answers->finish, id, 0, 0) &&
               put_piece(out, &answers->usage, id, prompt, engine->chunks) && put_piece(out, &answers->done, id, 0, 0);
        finish(engine, connection, engine->chunks);
    }
    if (!fits) hang_up(engine, connection);
}

/* In lockstep all streams move together on one grid, as the sequences of a batch do. */
static uint64_t next_due(const struct engine *engine, const struct connection *connection, uint64_t now) {
    if (engine->chunk_ns == 0) return now + 1; /* behind every stream that is due already: round robin */
    uint64_t due = connection->due_ns + engine->chunk_ns;
    return engine->lockstep ? due - due % engine->chunk_ns : due;
}

/* The connection's time has come: send the answer or the next chunk. */
static void fire(struct engine *engine, struct connection *connection, uint64_t now) {
    unschedule(engine, connection);
    if (connection->streams) {
        for (unsigned i = 0; i < engine->chunks_per_write && connection->phase == WAITING && !connection->dead; i++)
            put_next_chunk(engine, connection);
    } else {
        if (!put_piece(&connection->out, &engine->answers.whole, connection->id, connection->prompt_tokens,
                       WHOLE_COMPLETION_TOKENS))
            hang_up(engine, connection);
        else
            finish(engine, connection, WHOLE_COMPLETION_TOKENS);
    }
    if (connection->dead) return;
    if (flush(engine, connection) && connection->phase == WAITING)
        schedule(engine, connection, next_due(engine, connection, now));
}

/* Reads the head at the start of `in`. Returns false when it is incomplete or not acceptable (then it hung up). */
static bool read_head(struct engine *engine, struct connection *connection) {
    const char *head = connection->in.data;
    const char *end = memmem(head, connection->in.length, "\r\n\r\n", 4);
    size_t length = end ? (size_t)(end - head) + 4 : connection->in.length;
    if (length > HEAD_BYTES_MAX) hang_up(engine, connection);
    if (!end || connection->dead) return false;
    connection->head_length = length;
    const char *value = header_value(head, length, "content-length:");
    connection->body_length = value ? strtoul(value, NULL, 10) : 0;
    bool unmeasured = header_value(head, length, "transfer-encoding:") != NULL;
    if (!unmeasured && connection->body_length <= BUFFER_BYTES_MAX - HEAD_BYTES_MAX) return true;
    engine->refused++;
    hang_up(engine, connection);
    return false;
}

static void answer(struct engine *engine, struct connection *connection) {
    const char *head = connection->in.data;
    if (strncmp(head, "GET ", 4) == 0) {
        answer_get(engine, connection, head + 4);
    } else if (strncmp(head, "POST /v1/chat/completions ", 26) == 0) {
        uint64_t now = now_ns();
        connection->streams = wants_stream(head + connection->head_length, connection->body_length);
        connection->prompt_tokens = connection->body_length / PROMPT_BYTES_PER_TOKEN + 1;
        connection->chunks_sent = 0;
        connection->id = ++engine->requests;
        connection->phase = WAITING;
        engine->streams += connection->streams;
        connection->due_ns = now + engine->first_token_ns;
        if (engine->first_token_ns == 0)
            fire(engine, connection, now);
        else
            schedule(engine, connection, connection->due_ns);
    } else {
        put_text(engine, connection, "404 Not Found", "application/json", "{\"detail\":\"Not Found\"}");
    }
}

/* Answers what has arrived whole, one request at a time; an answer in progress holds the next one back. */
static void serve_requests(struct engine *engine, struct connection *connection) {
    while (!connection->dead && connection->phase == READING && connection->in.length) {
        if (!connection->head_length && !read_head(engine, connection)) return;
        size_t length = connection->head_length + connection->body_length;
        if (connection->in.length < length) {
            if (!buffer_reserve(&connection->in, length - connection->in.length)) hang_up(engine, connection);
            return;
        }
        answer(engine, connection);
        if (connection->dead) return;
        buffer_consume(&connection->in, length);
        connection->head_length = connection->body_length = 0;
        if (connection->out.length && !flush(engine, connection)) return;
    }
}

static void receive(struct engine *engine, struct connection *connection) {
    for (;;) {
        if (!buffer_reserve(&connection->in, 4096)) {
            hang_up(engine, connection);
            return;
        }
        size_t room = connection->in.capacity - connection->in.length;
        ssize_t got = recv(connection->fd, connection->in.data + connection->in.length, room, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0 && errno == EAGAIN) return;
        if (got <= 0) {
            hang_up(engine, connection);
            return;
        }
        connection->in.length += (size_t)got;
        serve_requests(engine, connection);
        if (connection->dead || (size_t)got < room) return;
    }
}

static void accept_all(struct engine *engine) {
    int fd;
    while ((fd = accept4(engine->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct connection *connection = calloc(1, sizeof *connection);
        if (!connection || engine->connections >= CONNECTIONS_MAX) {
            free(connection);
            close(fd);
            engine->refused++;
            continue;
        }
        no_delay(fd);
        connection->fd = fd;
        engine->connections++;
        watch(engine->epoll, EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLRDHUP, connection);
    }
}

static void on_event(struct engine *engine, struct connection *connection, uint32_t events) {
    if (connection->dead) return;
    if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) {
        hang_up(engine, connection);
        return;
    }
    if (events & EPOLLOUT && flush(engine, connection)) {
        if (connection->phase == WAITING)
            schedule(engine, connection, next_due(engine, connection, now_ns()));
        else
            serve_requests(engine, connection);
    }
    if (events & EPOLLIN && !connection->dead) receive(engine, connection);
}

/* Signals are let in only while waiting: one between the look at `stopping` and the wait would be slept over. */
static void run(struct engine *engine, const sigset_t *while_waiting) {
    struct epoll_event events[EVENTS_PER_WAIT];
    while (!stopping) {
        uint64_t now = now_ns();
        while (engine->heap_length && engine->heap[0]->due_ns <= now) {
            struct connection *due = engine->heap[0];
            fire(engine, due, now);
            serve_requests(engine, due);
        }
        bury(engine);
        bool busy = engine->heap_length && engine->heap[0]->due_ns <= now_ns();
        if (engine->heap_length && !busy && engine->heap[0]->due_ns != engine->armed_ns) {
            engine->armed_ns = engine->heap[0]->due_ns;
            arm_timer(engine->timer, engine->armed_ns);
        }
        int count = epoll_pwait(engine->epoll, events, EVENTS_PER_WAIT, busy ? 0 : -1, while_waiting);
        for (int i = 0; i < count; i++) {
            void *pointer = events[i].data.ptr;
            if (pointer == &engine->listener)
                accept_all(engine);
            else if (pointer == &engine->timer)
                clear_timer(engine->timer);
            else
                on_event(engine, pointer, events[i].events);
        }
    }
}

static void print_counters(const struct engine *engine) {
    printf("{\"requests\":%llu,\"streams\":%llu,\"finished\":%llu,\"hangups\":%llu,\"refused\":%llu,\"chunks\":%llu,"
           "\"prompt_tokens\":%llu,\"completion_tokens\":%llu,\"cpu_s\":%.3f}\n",
           (unsigned long long)engine->requests, (unsigned long long)engine->streams,
           (unsigned long long)engine->finished, (unsigned long long)engine->hangups,
           (unsigned long long)engine->refused, (unsigned long long)engine->chunks_total,
           (unsigned long long)engine->prompt_tokens, (unsigned long long)engine->completion_tokens, cpu_seconds());
}

int main(int argc, char **argv) {
    static const struct option options[] = {
        {"port", required_argument, NULL, 'p'},     {"first-token-ms", required_argument, NULL, 'f'},
        {"chunk-ms", required_argument, NULL, 'c'}, {"chunks", required_argument, NULL, 'n'},
        {"model", required_argument, NULL, 'm'},    {"lockstep", no_argument, NULL, 'l'},
        {"chunks-per-write", required_argument, NULL, 'w'},
        {NULL, 0, NULL, 0}};
    static struct engine engine = {.chunks = 100, .chunks_per_write = 1, .model = "bench"};
    unsigned port = 0;
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) switch (option) {
        case 'p': port = (unsigned)number_option("port", optarg, 65535); break;
        case 'f': engine.first_token_ns = (uint64_t)(number_option("first-token-ms", optarg, 6e4) * NS_PER_MS); break;
        case 'c': engine.chunk_ns = (uint64_t)(number_option("chunk-ms", optarg, 6e4) * NS_PER_MS); break;
        case 'n': engine.chunks = (unsigned)number_option("chunks", optarg, 1e6); break;
        case 'w': engine.chunks_per_write = (unsigned)number_option("chunks-per-write", optarg, 1000); break;
        case 'm': engine.model = optarg; break;
        case 'l': engine.lockstep = true; break;
        default:
            die("usage: engine [--port N] [--model NAME] [--first-token-ms F] [--chunk-ms F] [--chunks N] ...");
        }
    if (engine.chunks == 0 || engine.chunks_per_write == 0) die("--chunks and --chunks-per-write must be at least 1");
    struct sigaction action = {.sa_handler = stop};
    sigset_t stops, while_waiting;
    sigemptyset(&stops);
    sigaddset(&stops, SIGTERM);
    sigaddset(&stops, SIGINT);
    sigprocmask(SIG_BLOCK, &stops, &while_waiting);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    raise_file_limit();
    render_answers(&engine.answers, engine.model);
    engine.epoll = epoll_create1(EPOLL_CLOEXEC);
    engine.timer = make_timer(engine.epoll, &engine.timer);
    engine.listener = listen_on(port);
    watch(engine.epoll, EPOLL_CTL_ADD, engine.listener, EPOLLIN, &engine.listener);
    run(&engine, &while_waiting);
    print_counters(&engine);
    return 0;
}
