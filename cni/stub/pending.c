/* A DEL that nobody answers, written down so that it outlives power cuts. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "stub.h"

/* Makes the folder and those above it; what is wrong shows when a file is made in it. */
static void make_folders(const char *path)
{
    char part[VALUE_MAX];
    const size_t len = strlen(path);
    for (size_t at = 1; at <= len && len < sizeof part; at++) {
        if (path[at] != '/' && path[at] != 0)
            continue;
        memcpy(part, path, at);
        part[at] = 0;
        mkdir(part, path[at] ? 0755 : 0700);
    }
}

/* Whether text can be a container's id, or an interface's name; NULL cannot. */
int is_name(const char *text, size_t max, int ifname)
{
    static const char allowed[] = "_.-abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    const size_t len = text ? strlen(text) : 0;
    if (len == 0 || len > max || (ifname && (!strcmp(text, ".") || !strcmp(text, ".."))))
        return 0;
    if (ifname)
        return strcspn(text, "/: \t\n\v\f\r") == len;
    return strchr("_.-", text[0]) == NULL && strspn(text, allowed) == len;
}

/* FNV-1a of name and network: one container may have the same interface in another one later. */
static uint64_t hash(const struct call *call)
{
    uint64_t sum = 0xcbf29ce484222325;
    const char *parts[] = {call->name, call->network};
    for (size_t part = 0; part < 2; part++)
        for (const char *p = parts[part];; p++) {
            sum = (sum ^ (unsigned char)*p) * 0x100000001b3;
            if (!*p)
                break;
        }
    return sum;
}

/* Writes the request down durably. 0, or an errno. */
int write_down(const struct call *call, const char *id, const char *ifname)
{
    char name[ID_MAX + IFNAME_MAX + 32], fresh[sizeof name + 32];
    snprintf(name, sizeof name, "%s@%s.%016llx", id, ifname, (unsigned long long)hash(call));
    snprintf(fresh, sizeof fresh, ".%s.%ld", name, (long)getpid());
    make_folders(call->pending);
    const int folder = open(call->pending, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
    if (folder < 0)
        return errno;
    const int file = openat(folder, fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (file < 0)
        return errno;
    if (write_all(file, request + HEADER_LEN - 1, call->len - HEADER_LEN + 1) != 0 ||
        fsync(file) != 0 || renameat(folder, fresh, folder, name) != 0 || fsync(folder) != 0) {
        const int reason = errno;
        unlinkat(folder, fresh, 0);
        return reason;
    }
    return 0;
}
