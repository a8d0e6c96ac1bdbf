/*
 * The executable that a container runtime calls as weave-net, weave-ipam or weft-host-local.
 *
 * It holds no knowledge of networks: it hands its name, the CNI variables, standard input and the
 * opened network namespace to control over a Unix socket, and prints what comes back. Static, libc
 * only, no heap: a host has nothing else of ours, and a pod's start waits for it.
 *
 * By itself it does two things. VERSION is answered at once. A DEL that nobody answers is written
 * down durably, one file per container and interface, and counts as done; control takes the folder
 * up at its start and whenever a file appears.
 *
 * Request, with at most one descriptor attached to its first byte; answer; both big endian:
 *
 *   +----------------+---------+----------------------------------+----+---------------+
 *   | 4 length after | 1 = 1   | name NUL, NAME=value NUL ...     | NUL| configuration |
 *   +----------------+---------+----------------------------------+----+---------------+
 *
 *   +----------------+-------------+----------+----------------+-----------------+
 *   | 4 length after | exit status | 4 length | standard error | standard output |
 *   +----------------+-------------+----------+----------------+-----------------+
 *
 * A file in the folder of pending DELs holds a request, from its second field on.
 * Source of truth: cni specification 1, 5, 7 and 8.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "stub.h"

static const char default_socket[] = "/run/weave/cni.sock";
static const char default_pending[] = "/var/lib/weave/pending-del";
static const char newest_version[] = "1.1.0";
static const char supported[] =
    "[\"0.1.0\",\"0.2.0\",\"0.3.0\",\"0.3.1\",\"0.4.0\",\"1.0.0\",\"1.1.0\"]";

uint8_t request[HEADER_LEN + NAME_MAX_LEN + ENVIRONMENT_MAX + CONFIG_MAX + 4];
uint8_t answer[ANSWER_MAX];

/* ---- output --------------------------------------------------------------------------------- */

int write_all(int fd, const void *data, size_t len)
{
    const uint8_t *from = data;
    while (len > 0) {
        const ssize_t done = write(fd, from, len);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return -1;
        from += done;
        len -= (size_t)done;
    }
    return 0;
}

static size_t format_error(char *out, size_t out_len, const char *version, int code,
                           const char *message, const char *details)
{
    size_t at = (size_t)snprintf(out, out_len, "{\"cniVersion\":");
    at = append_string(out, out_len, at, version);
    at += (size_t)snprintf(out + at, out_len - at, ",\"code\":%d,\"msg\":", code);
    at = append_string(out, out_len - 1100, at, message);
    at += (size_t)snprintf(out + at, out_len - at, ",\"details\":");
    at = append_string(out, out_len - 4, at, details);
    at += (size_t)snprintf(out + at, out_len - at, "}\n");
    return at;
}

/* Prints an error; the exit status. */
__attribute__((format(printf, 4, 5))) static int fail(const struct call *call, int code,
                                                       const char *message, const char *format, ...)
{
    char details[1024], text[8192];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(details, sizeof details, format, arguments);
    va_end(arguments);
    const char *version = call->version[0] ? call->version : newest_version;
    const size_t len = format_error(text, sizeof text, version, code, message, details);
    write_all(STDOUT_FILENO, text, len);
    return 1;
}

static int print_version(const struct call *call)
{
    char text[256];
    const char *version = call->version[0] ? call->version : newest_version;
    const int len = snprintf(text, sizeof text, "{\"cniVersion\":\"%s\",\"supportedVersions\":%s}\n",
                             version, supported);
    return write_all(STDOUT_FILENO, text, (size_t)len) == 0 ? 0 : 1;
}

/* ---- input ---------------------------------------------------------------------------------- */

/* Appends text and its NUL to the request; -1: no room before `limit`. */
static int put(struct call *call, const char *text, size_t limit)
{
    const size_t len = strlen(text) + 1;
    if (call->len + len > limit)
        return -1;
    memcpy(request + call->len, text, len);
    call->len += len;
    return 0;
}

/* Name and variables into the request; what else is in our environment is nobody's business. */
static int gather(struct call *call)
{
    const size_t limit = HEADER_LEN + NAME_MAX_LEN + ENVIRONMENT_MAX;
    call->len = HEADER_LEN;
    if (strlen(call->name) >= NAME_MAX_LEN || put(call, call->name, limit) != 0)
        return -1;
    for (char **variable = environ; *variable; variable++) {
        if (strncmp(*variable, "CNI_", 4) != 0 && strncmp(*variable, "PATH=", 5) != 0)
            continue;
        if (put(call, *variable, limit) != 0)
            return -1;
    }
    request[call->len++] = 0;
    call->config_at = call->len;
    return 0;
}

/* Standard input behind it. 0, or an errno; EFBIG: it is longer than a configuration can be. */
static int read_config(struct call *call)
{
    for (;;) {
        const size_t room = call->config_at + CONFIG_MAX + 1 - call->len;
        const ssize_t got = read(STDIN_FILENO, request + call->len, room);
        if (got == 0)
            return 0;
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return errno;
        call->len += (size_t)got;
        if (call->len - call->config_at > CONFIG_MAX)
            return EFBIG;
    }
}

static void scan_config(struct call *call)
{
    const uint8_t *text = request + call->config_at;
    const size_t len = call->len - call->config_at;
    char number[32];
    double timeout_s = 25;

    if (find_value(text, len, "cniVersion", call->version, sizeof call->version) &&
        strspn(call->version, "0123456789.") != strlen(call->version))
        call->version[0] = 0;
    find_value(text, len, "name", call->network, sizeof call->network);
    if (!find_value(text, len, "routerSocket", call->socket, sizeof call->socket))
        memcpy(call->socket, default_socket, sizeof default_socket);
    if (!find_value(text, len, "pendingDir", call->pending, sizeof call->pending))
        memcpy(call->pending, default_pending, sizeof default_pending);
    if (find_value(text, len, "timeout", number, sizeof number))
        timeout_s = strtod(number, NULL);
    if (!(timeout_s > 0 && timeout_s <= 3600))
        timeout_s = 25;
    call->deadline_ms = now_ms() + (int64_t)(timeout_s * 1000) + MARGIN_MS;
}

/* ---- the call ------------------------------------------------------------------------------- */

static int without_control(const struct call *call, int reason)
{
    static const char message[] = "the node service does not answer";
    const char *help = "is the weave-net pod (DaemonSet weave-net in kube-system), or weft launch, "
                       "running on this node?";
    const int code = strcmp(call->command, "STATUS") == 0 ? CODE_UNAVAILABLE : CODE_TRY_AGAIN;
    if (strcmp(call->command, "DEL") != 0)
        return fail(call, code, message, "%s: %s; %s", call->socket, strerror(reason),
                    help);
    const char *id = getenv("CNI_CONTAINERID"), *ifname = getenv("CNI_IFNAME");
    if (!is_name(id, ID_MAX, 0))
        return fail(call, CODE_BAD_ENVIRONMENT,
                    "environment variable CNI_CONTAINERID is missing or invalid", "needed for DEL");
    if (!is_name(ifname, IFNAME_MAX, 1))
        return fail(call, CODE_BAD_ENVIRONMENT,
                    "environment variable CNI_IFNAME is missing or invalid", "needed for DEL");
    const int failed = write_down(call, id, ifname);
    if (failed != 0)
        return fail(call, CODE_TRY_AGAIN, message,
                    "%s: %s; and the release cannot be written to %s: %s; %s", call->socket,
                    strerror(reason), call->pending, strerror(failed), help);
    fprintf(stderr, "%s: %s: %s; the release waits in %s\n", call->name, call->socket,
            strerror(reason), call->pending);
    return 0;
}

int main(int argc, char **argv)
{
    struct call call = {0};
    const char *slash = argc > 0 ? strrchr(argv[0], '/') : NULL;
    call.name = slash ? slash + 1 : argc > 0 ? argv[0] : "";
    call.command = getenv("CNI_COMMAND");
    if (!call.command || !*call.command)
        return fail(&call, CODE_BAD_ENVIRONMENT, "environment variable CNI_COMMAND is missing",
                    "this program is run by a container runtime");
    if (gather(&call) != 0)
        return fail(&call, CODE_BAD_ENVIRONMENT, "the environment's CNI variables are too long",
                    "at most %d bytes", ENVIRONMENT_MAX);
    const int unread = read_config(&call);
    if (unread == EFBIG)
        return fail(&call, CODE_UNDECODABLE, "configuration is too long", "at most %d bytes",
                    CONFIG_MAX);
    if (unread != 0)
        return fail(&call, CODE_IO_FAILURE, "cannot read the configuration", "%s",
                    strerror(unread));
    scan_config(&call);
    if (strcmp(call.command, "VERSION") == 0)
        return print_version(&call);
    const size_t len = call.len - 4;
    for (int at = 0; at < 4; at++)
        request[at] = (uint8_t)(len >> (24 - 8 * at));
    request[4] = PROTOCOL_VERSION;
    size_t answer_len = 0;
    const int reason = ask(&call, &answer_len);
    if (reason != 0)
        return without_control(&call, reason);
    const size_t errors_len = get_length(answer + 1);
    if (errors_len > answer_len - ANSWER_HEADER_LEN)
        return without_control(&call, EPROTO);
    write_all(STDERR_FILENO, answer + ANSWER_HEADER_LEN, errors_len);
    const size_t at = ANSWER_HEADER_LEN + errors_len;
    return write_all(STDOUT_FILENO, answer + at, answer_len - at) == 0 ? answer[0] : 1;
}
