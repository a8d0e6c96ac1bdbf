/* The way to control and back, bounded by the deadline of the call. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "stub.h"

int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Waits until fd can be read or written, not beyond the deadline. 0, or an errno. */
static int await(const struct call *call, int fd, short events)
{
    for (;;) {
        const int64_t left = call->deadline_ms - now_ms();
        struct pollfd wait = {.fd = fd, .events = events};
        const int ready = left > 0 ? poll(&wait, 1, left > INT_MAX ? INT_MAX : (int)left) : 0;
        if (ready == 0)
            return ETIMEDOUT;
        if (ready > 0)
            return 0;
        if (errno != EINTR)
            return errno;
    }
}

/* Sends the request, a descriptor (unless it is -1) with its first byte. 0, or an errno. */
static int send_request(const struct call *call, int fd, int netns)
{
    char space[CMSG_SPACE(sizeof(int))] = {0};
    size_t sent = 0;

    while (sent < call->len) {
        struct iovec part = {request + sent, call->len - sent};
        struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
        if (sent == 0 && netns >= 0) {
            message.msg_control = space;
            message.msg_controllen = sizeof space;
            struct cmsghdr *header = CMSG_FIRSTHDR(&message);
            header->cmsg_level = SOL_SOCKET;
            header->cmsg_type = SCM_RIGHTS;
            header->cmsg_len = CMSG_LEN(sizeof netns);
            memcpy(CMSG_DATA(header), &netns, sizeof netns);
        }
        const ssize_t done = sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (done >= 0) {
            sent += (size_t)done;
        } else if (errno == EAGAIN) {
            const int reason = await(call, fd, POLLOUT);
            if (reason != 0)
                return reason;
        } else if (errno != EINTR) {
            return errno;
        }
    }
    return 0;
}

/* Receives len bytes. 0, or an errno; EPIPE: the other end is gone before that. */
static int receive(const struct call *call, int fd, uint8_t *into, size_t len)
{
    while (len > 0) {
        const int reason = await(call, fd, POLLIN);
        if (reason != 0)
            return reason;
        const ssize_t got = recv(fd, into, len, MSG_DONTWAIT);
        if (got == 0)
            return EPIPE;
        if (got > 0) {
            into += got;
            len -= (size_t)got;
        } else if (errno != EINTR && errno != EAGAIN) {
            return errno;
        }
    }
    return 0;
}

/* Four bytes, big endian. */
size_t get_length(const uint8_t *from)
{
    return (size_t)from[0] << 24 | (size_t)from[1] << 16 | (size_t)from[2] << 8 | from[3];
}

/* Asks control. 0: *answer_len bytes of answer, at least their header; else an errno. */
int ask(const struct call *call, size_t *answer_len)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(call->socket) >= sizeof address.sun_path)
        return ENAMETOOLONG;
    memcpy(address.sun_path, call->socket, strlen(call->socket) + 1);
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return errno;
    /* connect() waits while the backlog is full; zero would mean for ever */
    const int64_t left_ms = call->deadline_ms - now_ms();
    const struct timeval limit = {.tv_sec = left_ms > 1000 ? left_ms / 1000 : 1};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    if (connect(fd, (const struct sockaddr *)&address, sizeof address) != 0)
        return errno;
    /* O_PATH: opening whatever it is has no effect. Control says what is wrong with it. */
    const char *path = getenv("CNI_NETNS");
    const int netns = path && *path ? open(path, O_PATH | O_CLOEXEC) : -1;
    int reason = send_request(call, fd, netns);
    uint8_t header[4];
    if (reason == 0)
        reason = receive(call, fd, header, sizeof header);
    if (reason != 0)
        return reason;
    *answer_len = get_length(header);
    if (*answer_len < ANSWER_HEADER_LEN || *answer_len > sizeof answer)
        return EPROTO;
    return receive(call, fd, answer, *answer_len);
}
