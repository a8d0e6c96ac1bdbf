/* hostile_blast - what an ill-meaning host on the underlay may send to a sleeve port.
 *
 *   hostile_blast ADDRESS PORT SECONDS PER_SECOND NEIGHBOUR OURSELF OTHER
 *
 * NEIGHBOUR, OURSELF, OTHER: peer names as 12 hex digits. The attacked router is OURSELF, NEIGHBOUR one
 * whose datagrams it takes, OTHER a third it knows (or NEIGHBOUR again). The kinds below go in turn,
 * PER_SECOND of them all together, in bursts of sendmmsg. Prints one JSON object: how many of each kind.
 *
 * No datagram is one that a router should forward: all are garbage, cut off, or forged in a way that
 * the wire format lets one see. Plain sleeve cannot tell a well-formed forgery from the real thing.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BURST 64u
#define VARIANTS 32u
#define SIZE_MAX_ 1472u
#define NAME 6u
#define RECORD 14u

enum kind {
    EMPTY,           /* no byte at all */
    SHORT,           /* less than a sender name */
    GARBAGE,         /* random bytes: unknown sender */
    UNKNOWN_SENDER,  /* well formed, from a peer nobody knows */
    TRUNCATED,       /* record longer than the datagram */
    TRAILING,        /* a good record, then up to 13 bytes */
    UNKNOWN_PEER,    /* source or destination nobody knows */
    OWN_SOURCE,      /* our own frame come back */
    SHORT_FRAME,     /* record with a frame shorter than an Ethernet header */
    STRAY_SPECIAL,   /* special frame that is not the neighbour's own, or not for us */
    HEARTBEAT,       /* heartbeat of a connection that does not exist */
    KINDS
};

static const char *const KIND_NAMES[KINDS] = {
    "empty",        "short",      "garbage",     "unknown_sender", "truncated", "trailing",
    "unknown_peer", "own_source", "short_frame", "stray_special",  "heartbeat"};

struct datagram {
    uint8_t data[SIZE_MAX_];
    size_t len;
    enum kind kind;
};

static uint8_t neighbour[NAME], ourself[NAME], other[NAME];
static const uint8_t stranger[NAME] = {0xde, 0xad, 0xbe, 0xef, 0x00, 0x01};
static uint64_t state = 0x9e3779b97f4a7c15ull;

static _Noreturn void die(const char *what)
{
    fprintf(stderr, "hostile_blast: %s: %s\n", what, errno ? strerror(errno) : "wrong");
    exit(1);
}

static uint64_t next_random(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static void scribble(uint8_t *to, size_t len)
{
    for (size_t i = 0; i < len; i++)
        to[i] = (uint8_t)next_random();
}

static void name_from(const char *text, uint8_t *to)
{
    if (strlen(text) != 2 * NAME)
        die("peer name");
    for (unsigned i = 0; i < NAME; i++) {
        unsigned octet = 0;
        if (sscanf(text + 2 * i, "%2x", &octet) != 1)
            die("peer name");
        to[i] = (uint8_t)octet;
    }
}

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* A record header and `len` random bytes of frame, of which `there` are really there. */
static void add(struct datagram *d, const uint8_t *source, const uint8_t *destination, size_t len,
                size_t there)
{
    uint8_t *at = d->data + d->len;
    memcpy(at, source, NAME);
    memcpy(at + NAME, destination, NAME);
    at[12] = (uint8_t)(len >> 8);
    at[13] = (uint8_t)len;
    scribble(at + RECORD, there);
    d->len += RECORD + there;
}

static void make(struct datagram *d, enum kind kind)
{
    size_t some = 60 + next_random() % 1000;
    size_t before = 0;
    memcpy(d->data, kind == UNKNOWN_SENDER ? stranger : neighbour, NAME);
    d->kind = kind;
    d->len = NAME;
    switch (kind) {
    case EMPTY:
        d->len = 0;
        break;
    case SHORT:
        d->len = 1 + next_random() % (NAME - 1);
        break;
    case GARBAGE:
        d->len = NAME + some;
        scribble(d->data, d->len);
        d->data[0] = 0x5a; /* nobody's name */
        break;
    case UNKNOWN_SENDER:
        add(d, stranger, ourself, some, some);
        break;
    case TRUNCATED:
        add(d, neighbour, ourself, some, next_random() % some);
        break;
    case TRAILING:
        before = d->len + RECORD;
        add(d, neighbour, stranger, some, some); /* a complete record, to nobody */
        scribble(d->data + d->len, 13);
        d->len += 1 + next_random() % 13;
        break;
    case UNKNOWN_PEER:
        add(d, stranger, ourself, some, some);
        add(d, neighbour, stranger, 64, 64);
        break;
    case OWN_SOURCE:
        before = d->len + RECORD;
        add(d, ourself, ourself, some, some);
        break;
    case SHORT_FRAME:
        add(d, neighbour, ourself, next_random() % 14, 0);
        d->len += d->data[d->len - 1];
        scribble(d->data + NAME + RECORD, d->len - NAME - RECORD);
        break;
    case STRAY_SPECIAL:
        before = d->len + RECORD;
        if (next_random() & 1)
            add(d, other, ourself, some, some);
        else
            add(d, neighbour, other, some, some);
        if (memcmp(other, neighbour, NAME) == 0)
            memcpy(d->data + NAME, ourself, NAME); /* no third peer: claim to be the router itself */
        memset(d->data + before, 0, 14);
        break;
    case HEARTBEAT:
    case KINDS:
        before = d->len + RECORD;
        add(d, neighbour, ourself, 22, 22);
        memset(d->data + before, 0, 14);
        break;
    }
    if (kind == OWN_SOURCE)
        d->data[before] = 0x02; /* an ordinary unicast MAC, not a special frame */
}

int main(int argc, char **argv)
{
    static struct datagram datagrams[KINDS * VARIANTS];
    static uint64_t sent_of[KINDS];
    struct mmsghdr messages[BURST];
    struct iovec vectors[BURST];
    struct sockaddr_in to = {.sin_family = AF_INET};
    if (argc != 8 || inet_pton(AF_INET, argv[1], &to.sin_addr) != 1) {
        fprintf(stderr, "usage: hostile_blast ADDRESS PORT SECONDS PER_SECOND NEIGHBOUR OURSELF OTHER\n");
        return 2;
    }
    to.sin_port = htons((uint16_t)atoi(argv[2]));
    double seconds = atof(argv[3]), per_second = atof(argv[4]);
    name_from(argv[5], neighbour);
    name_from(argv[6], ourself);
    name_from(argv[7], other);
    for (unsigned i = 0; i < KINDS * VARIANTS; i++)
        make(&datagrams[i], (enum kind)(i % KINDS));
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) != 0)
        die("socket");
    uint64_t sent = 0;
    double start = now_s(), now = start;
    while (now - start < seconds) {
        double due = (now - start) * per_second - (double)sent;
        if (due < BURST) {
            struct timespec pause = {.tv_nsec = 100000};
            nanosleep(&pause, NULL);
            now = now_s();
            continue;
        }
        memset(messages, 0, sizeof messages);
        for (unsigned i = 0; i < BURST; i++) {
            struct datagram *d = &datagrams[(sent + i) % (KINDS * VARIANTS)];
            vectors[i] = (struct iovec){d->data, d->len};
            messages[i].msg_hdr = (struct msghdr){.msg_iov = &vectors[i], .msg_iovlen = 1};
        }
        int n = sendmmsg(fd, messages, BURST, 0);
        if (n < 0 && errno != ECONNREFUSED && errno != ENOBUFS && errno != EINTR)
            die("sendmmsg");
        for (int i = 0; i < n; i++)
            sent_of[datagrams[(sent + (uint64_t)i) % (KINDS * VARIANTS)].kind]++;
        sent += n > 0 ? (uint64_t)n : 0;
        now = now_s();
    }
    printf("{\"datagrams\": %llu, \"seconds\": %.3f, \"per_second\": %.1f", (unsigned long long)sent,
           now - start, (double)sent / (now - start));
    for (unsigned i = 0; i < KINDS; i++)
        printf(", \"%s\": %llu", KIND_NAMES[i], (unsigned long long)sent_of[i]);
    printf("}\n");
    return 0;
}
