/* Requests to an HTTP server on a Unix socket, as fast as it answers them.
 *
 *   http_load SOCKET CALLERS SECONDS METHOD PATH_PREFIX
 *
 * Each caller is one connection that is kept alive and has one request under way; request number n
 * goes to PATH_PREFIX followed by n. Prints one JSON object: how many were answered and how fast,
 * how many with another status than 2xx, and the spread of the time to an answer in microseconds.
 * One thread, level-triggered epoll. Exit codes: 0 measured, 1 it could not be, 2 usage. */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { CALLERS_MAX = 1024, BUFFER = 4096, SAMPLES_MAX = 1 << 22 };

struct caller {
    int fd;
    size_t have;
    double asked;
    char buffer[BUFFER];
};

static struct caller callers[CALLERS_MAX];
static float *samples;
static size_t answered, refused;
static unsigned long number;
static const char *method, *prefix;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void fail(const char *what) {
    fprintf(stderr, "http_load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int connect_to(const char *path) {
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof addr.sun_path) {
        errno = ENAMETOOLONG;
        fail(path);
    }
    strcpy(addr.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof addr) < 0)
        fail(path);
    return fd;
}

static void ask(struct caller *c) {
    char request[BUFFER];
    int len = snprintf(request, sizeof request, "%s %s%lu HTTP/1.1\r\nHost: weft\r\n\r\n", method,
                       prefix, number++);
    if (len < 0 || (size_t)len >= sizeof request) {
        errno = EMSGSIZE;
        fail("request");
    }
    c->asked = now();
    if (send(c->fd, request, (size_t)len, MSG_NOSIGNAL) != len)
        fail("send");
}

/* Length of a complete answer at the head of the buffer, 0 if there is none yet. */
static size_t complete(const struct caller *c) {
    const char *end = memmem(c->buffer, c->have, "\r\n\r\n", 4);
    if (end == NULL)
        return 0;
    size_t head = (size_t)(end - c->buffer) + 4, body = 0;
    for (const char *line = c->buffer; line < end; line = strstr(line, "\r\n") + 2)
        if (strncasecmp(line, "content-length:", 15) == 0)
            body = strtoul(line + 15, NULL, 10);
    return c->have >= head + body ? head + body : 0;
}

static void hear(struct caller *c) {
    ssize_t got = recv(c->fd, c->buffer + c->have, BUFFER - 1 - c->have, 0);
    if (got <= 0)
        fail("the server closed a connection");
    c->have += (size_t)got;
    c->buffer[c->have] = 0;
    size_t length = complete(c);
    if (length == 0) {
        if (c->have == BUFFER - 1) {
            errno = EMSGSIZE;
            fail("answer");
        }
        return;
    }
    if (c->buffer[9] != '2')
        refused++;
    if (answered < SAMPLES_MAX)
        samples[answered] = (float)((now() - c->asked) * 1e6);
    answered++;
    c->have -= length;
    memmove(c->buffer, c->buffer + length, c->have);
    ask(c);
}

static int ascending(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv) {
    if (argc != 6) {
        fprintf(stderr, "usage: http_load SOCKET CALLERS SECONDS METHOD PATH_PREFIX\n");
        return 2;
    }
    int count = atoi(argv[2]);
    double seconds = atof(argv[3]);
    method = argv[4];
    prefix = argv[5];
    if (count < 1 || count > CALLERS_MAX || seconds <= 0) {
        fprintf(stderr, "http_load: 1 to %d callers, some seconds\n", CALLERS_MAX);
        return 2;
    }
    samples = malloc(SAMPLES_MAX * sizeof *samples);
    int poll = epoll_create1(EPOLL_CLOEXEC);
    if (samples == NULL || poll < 0)
        fail("start");
    for (int i = 0; i < count; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &callers[i]};
        callers[i].fd = connect_to(argv[1]);
        if (epoll_ctl(poll, EPOLL_CTL_ADD, callers[i].fd, &event) < 0)
            fail("epoll");
    }
    double start = now();
    for (int i = 0; i < count; i++)
        ask(&callers[i]);
    struct epoll_event events[64];
    while (now() - start < seconds) {
        int ready = epoll_wait(poll, events, 64, 100);
        if (ready < 0 && errno != EINTR)
            fail("epoll_wait");
        for (int i = 0; i < ready; i++)
            hear(events[i].data.ptr);
    }
    double took = now() - start;
    size_t kept = answered < SAMPLES_MAX ? answered : SAMPLES_MAX;
    if (kept == 0) {
        errno = ETIMEDOUT;
        fail("no answer");
    }
    qsort(samples, kept, sizeof *samples, ascending);
    printf("{\"answered\": %zu, \"refused\": %zu, \"seconds\": %.4f, \"per_second\": %.1f, "
           "\"median_us\": %.1f, \"p99_us\": %.1f}\n",
           answered, refused, took, (double)answered / took, (double)samples[kept / 2],
           (double)samples[kept - 1 - kept / 100]);
    return 0;
}
