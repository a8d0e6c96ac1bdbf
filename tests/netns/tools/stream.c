/* stream - TCP streams and UDP datagrams whose every byte the receiver knows beforehand.
 *
 *   stream tcp-recv PORT STREAMS
 *   stream tcp-send ADDRESS PORT BYTES SECONDS SEED
 *   stream udp-recv PORT DATAGRAMS
 *   stream udp-send ADDRESS PORT DATAGRAMS SIZE_MAX SEED DF
 *
 * ADDRESS is IPv4 or IPv6, the receivers listen on both. Content is a sequence of 64-bit words that
 * follows from SEED alone, so that nothing but the seed travels beside it: a byte that is changed,
 * missing, doubled or out of place is seen where it happens.
 *
 * TCP ends after BYTES or after SECONDS, whichever is set (the other is 0); SEED 0 is not used.
 *
 * UDP: sizes from 24 bytes to SIZE_MAX, all different in turn. Datagrams go in windows; the receiver
 * answers each one, and what is not answered within 200 ms goes again ("resent"). So a receive buffer
 * never overflows, and a lost datagram is told from a changed one. DF 1: as Linux does by default,
 * 0: never set.
 *
 * One JSON object on stdout when all is well, exit 0; else one line on stderr, exit 1.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHUNK (256u * 1024u)
#define WINDOW 32u
#define UDP_MIN 24u
#define UDP_MAX 65507u
#define ROUNDS_MAX 25u
#define IDLE_S 20

struct udp_head {
    uint64_t seed;
    uint64_t number;
    uint64_t size;
};

static _Noreturn void die(const char *what)
{
    fprintf(stderr, "stream: %s: %s\n", what, errno ? strerror(errno) : "wrong");
    exit(1);
}

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* splitmix64: any word of the sequence can be had from its index */
static uint64_t word_at(uint64_t seed, uint64_t index)
{
    uint64_t z = seed + (index + 1) * 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

/* Content from byte `from` (a multiple of 8) on. */
static void fill(uint64_t seed, uint64_t from, uint8_t *out, size_t len)
{
    uint64_t index = from / 8;
    for (size_t at = 0; at < len; at += 8, index++) {
        uint64_t word = word_at(seed, index);
        memcpy(out + at, &word, len - at < 8 ? len - at : 8);
    }
}

static socklen_t parse(const char *address, const char *port, struct sockaddr_storage *to)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)to;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)to;
    memset(to, 0, sizeof *to);
    if (inet_pton(AF_INET, address, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons((uint16_t)atoi(port));
        return sizeof *v4;
    }
    if (inet_pton(AF_INET6, address, &v6->sin6_addr) != 1)
        die("address");
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons((uint16_t)atoi(port));
    return sizeof *v6;
}

/* A socket that takes IPv4 and IPv6 on `port`. */
static int serve(int type, const char *port)
{
    struct sockaddr_in6 at = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)atoi(port))};
    int one = 1, zero = 0, big = 8 << 20;
    int fd = socket(AF_INET6, type, 0);
    if (fd < 0)
        die("socket");
    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof zero);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (type == SOCK_DGRAM)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &big, sizeof big);
    if (bind(fd, (struct sockaddr *)&at, sizeof at) != 0)
        die("bind");
    if (type == SOCK_STREAM && listen(fd, 64) != 0)
        die("listen");
    fprintf(stderr, "ready\n");
    return fd;
}

static void read_all(int fd, void *to, size_t len)
{
    for (size_t at = 0; at < len;) {
        ssize_t got = recv(fd, (uint8_t *)to + at, len - at, 0);
        errno = got == 0 ? EPIPE : errno;
        if (got <= 0)
            die("receive");
        at += (size_t)got;
    }
}

static int tcp_check(int fd)
{
    static uint8_t got[CHUNK], want[CHUNK];
    uint64_t seed = 0, count = 0;
    read_all(fd, &seed, sizeof seed);
    for (;;) {
        size_t have = 0;
        while (have < CHUNK) { /* whole chunks keep the words aligned */
            ssize_t n = recv(fd, got + have, CHUNK - have, 0);
            if (n < 0)
                die("receive");
            if (n == 0)
                break;
            have += (size_t)n;
        }
        fill(seed, count, want, have);
        if (memcmp(got, want, have) != 0) {
            size_t at = 0;
            while (got[at] == want[at])
                at++;
            fprintf(stderr, "stream: byte %llu of stream %llu is wrong\n",
                    (unsigned long long)(count + at), (unsigned long long)seed);
            return 1;
        }
        count += have;
        if (have < CHUNK)
            break;
    }
    return send(fd, &count, sizeof count, 0) == sizeof count ? 0 : 1;
}

static int tcp_recv(const char *port, int streams)
{
    int fd = serve(SOCK_STREAM, port), failed = 0;
    struct timeval idle = {.tv_sec = IDLE_S};
    for (int i = 0; i < streams; i++) {
        int one = accept(fd, NULL, NULL);
        if (one < 0)
            die("accept");
        setsockopt(one, SOL_SOCKET, SO_RCVTIMEO, &idle, sizeof idle);
        pid_t child = fork();
        if (child < 0)
            die("fork");
        if (child == 0)
            _exit(tcp_check(one));
        close(one);
    }
    for (int i = 0; i < streams; i++) {
        int status = 0;
        if (wait(&status) < 0 || status != 0)
            failed = 1;
    }
    if (!failed)
        printf("{\"streams\": %d}\n", streams);
    return failed;
}

static int tcp_send(const char *address, const char *port, uint64_t bytes, double seconds,
                    uint64_t seed)
{
    static uint8_t data[CHUNK];
    struct sockaddr_storage to;
    struct timeval idle = {.tv_sec = IDLE_S};
    socklen_t len = parse(address, port, &to);
    int fd = socket(to.ss_family, SOCK_STREAM, 0);
    uint64_t sent = 0, confirmed = 0;
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, len) != 0)
        die("connect");
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &idle, sizeof idle);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &idle, sizeof idle);
    if (send(fd, &seed, sizeof seed, 0) != sizeof seed)
        die("send");
    double start = now_s();
    while (bytes ? sent < bytes : now_s() - start < seconds) {
        size_t want = bytes && bytes - sent < CHUNK ? (size_t)(bytes - sent) : CHUNK;
        fill(seed, sent, data, want);
        for (size_t at = 0; at < want;) {
            ssize_t n = send(fd, data + at, want - at, MSG_NOSIGNAL);
            if (n <= 0)
                die("send");
            at += (size_t)n;
        }
        sent += want;
    }
    shutdown(fd, SHUT_WR);
    read_all(fd, &confirmed, sizeof confirmed);
    if (confirmed != sent) {
        errno = 0;
        die("confirmed length");
    }
    double took = now_s() - start;
    printf("{\"bytes\": %llu, \"seconds\": %.3f, \"gbps\": %.4f}\n", (unsigned long long)sent, took,
           (double)sent * 8 / took / 1e9);
    return 0;
}

static size_t size_of(uint64_t number, size_t size_max)
{
    /* a prime step visits every size before one comes again */
    return UDP_MIN + (size_t)((number * 7919u) % (size_max - UDP_MIN + 1));
}

static int udp_recv(const char *port, uint64_t count)
{
    static uint8_t got[UDP_MAX + 1], want[UDP_MAX + 8];
    uint8_t *seen = calloc(count, 1);
    uint64_t distinct = 0, twice = 0;
    int fd = serve(SOCK_DGRAM, port);
    struct timeval idle = {.tv_sec = IDLE_S};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &idle, sizeof idle);
    while (distinct < count) {
        struct sockaddr_storage from;
        socklen_t from_len = sizeof from;
        struct udp_head head;
        ssize_t n = recvfrom(fd, got, sizeof got, 0, (struct sockaddr *)&from, &from_len);
        if (n < 0)
            die("receive");
        memcpy(&head, got, sizeof head);
        if ((size_t)n < UDP_MIN || head.size != (uint64_t)n || head.number >= count) {
            errno = 0;
            die("datagram's size");
        }
        fill(head.seed, head.number * 65536, want, (size_t)n);
        if (memcmp(got + sizeof head, want + sizeof head, (size_t)n - sizeof head) != 0) {
            errno = 0;
            die("datagram's content");
        }
        distinct += !seen[head.number];
        twice += seen[head.number];
        seen[head.number] = 1;
        sendto(fd, &head.number, sizeof head.number, 0, (struct sockaddr *)&from, from_len);
    }
    printf("{\"datagrams\": %llu, \"twice\": %llu}\n", (unsigned long long)distinct,
           (unsigned long long)twice);
    fflush(stdout);
    /* the last answers may have been lost: stay for a repeat */
    idle = (struct timeval){.tv_usec = 500000};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &idle, sizeof idle);
    for (;;) {
        struct sockaddr_storage from;
        socklen_t from_len = sizeof from;
        ssize_t n = recvfrom(fd, got, sizeof got, 0, (struct sockaddr *)&from, &from_len);
        if (n < (ssize_t)UDP_MIN)
            return 0;
        sendto(fd, got + 8, 8, 0, (struct sockaddr *)&from, from_len);
    }
}

static int udp_send(const char *address, const char *port, uint64_t count, size_t size_max,
                    uint64_t seed, int df)
{
    static uint8_t data[UDP_MAX + 8];
    struct sockaddr_storage to;
    socklen_t len = parse(address, port, &to);
    int fd = socket(to.ss_family, SOCK_DGRAM, 0), dont = 0, big = 8 << 20;
    uint64_t resent = 0;
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, len) != 0)
        die("connect");
    setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &big, sizeof big);
    if (!df) {
        setsockopt(fd, IPPROTO_IP, 10 /* IP_MTU_DISCOVER */, &dont, sizeof dont);
        setsockopt(fd, IPPROTO_IPV6, 23 /* IPV6_MTU_DISCOVER */, &dont, sizeof dont);
    }
    for (uint64_t first = 0; first < count; first += WINDOW) {
        unsigned n = count - first < WINDOW ? (unsigned)(count - first) : WINDOW;
        uint32_t missing = n == 32 ? UINT32_MAX : (1u << n) - 1;
        for (unsigned round = 0; missing; round++) {
            if (round == ROUNDS_MAX) {
                errno = ETIMEDOUT;
                die("window");
            }
            for (unsigned i = 0; i < n; i++) {
                uint64_t number = first + i;
                size_t size = size_of(number, size_max);
                struct udp_head head = {seed, number, size};
                if (!(missing >> i & 1))
                    continue;
                fill(seed, number * 65536, data, size);
                memcpy(data, &head, sizeof head);
                /* EMSGSIZE: the path has just become known; the repeat is cut to it */
                if (send(fd, data, size, 0) < 0 && errno != EMSGSIZE)
                    die("send");
                resent += round > 0;
            }
            double give_up = now_s() + 0.2;
            while (missing && now_s() < give_up) {
                struct pollfd wait_for = {.fd = fd, .events = POLLIN};
                uint64_t number = 0;
                if (poll(&wait_for, 1, 200) <= 0)
                    break;
                if (recv(fd, &number, sizeof number, MSG_DONTWAIT) == sizeof number &&
                    number >= first && number < first + n)
                    missing &= ~(1u << (number - first));
            }
        }
    }
    printf("{\"datagrams\": %llu, \"resent\": %llu}\n", (unsigned long long)count,
           (unsigned long long)resent);
    return 0;
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "";
    if (argc == 4 && strcmp(mode, "tcp-recv") == 0)
        return tcp_recv(argv[2], atoi(argv[3]));
    if (argc == 7 && strcmp(mode, "tcp-send") == 0)
        return tcp_send(argv[2], argv[3], strtoull(argv[4], NULL, 0), atof(argv[5]),
                        strtoull(argv[6], NULL, 0));
    if (argc == 4 && strcmp(mode, "udp-recv") == 0)
        return udp_recv(argv[2], strtoull(argv[3], NULL, 0));
    if (argc == 8 && strcmp(mode, "udp-send") == 0) {
        size_t size_max = strtoull(argv[5], NULL, 0);
        if (size_max >= UDP_MIN && size_max <= UDP_MAX)
            return udp_send(argv[2], argv[3], strtoull(argv[4], NULL, 0), size_max,
                            strtoull(argv[6], NULL, 0), atoi(argv[7]));
    }
    fprintf(stderr, "stream: usage: see the head of stream.c\n");
    return 2;
}
