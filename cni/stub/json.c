/* JSON, as little of it as the stub needs: one value out of an object, one string into one. */
#include <stdio.h>
#include <string.h>

#include "stub.h"

static size_t skip_blank(const uint8_t *text, size_t len, size_t at)
{
    while (at < len && (text[at] == ' ' || text[at] == '\t' || text[at] == '\n' || text[at] == '\r'))
        at++;
    return at;
}

/* Index behind the string that begins (with its quote) at `at`; len if it never ends. */
static size_t skip_string(const uint8_t *text, size_t len, size_t at)
{
    for (at++; at < len; at++) {
        if (text[at] == '\\')
            at++;
        else if (text[at] == '"')
            return at + 1;
    }
    return len;
}

/*
 * The string or number at `key` of the outermost object, as it stands there: a string with an
 * escape in it, or one that does not fit, is taken for absent. False: absent. Never reads beyond
 * len; what is no JSON gives nothing or something, which control will find out.
 */
int find_value(const uint8_t *text, size_t len, const char *key, char *out, size_t out_len)
{
    const size_t key_len = strlen(key);
    size_t depth = 0, at = 0;
    int found = 0;

    while (at < len) {
        const uint8_t byte = text[at];
        if (byte == '{' || byte == '[') {
            depth++;
            at++;
        } else if (byte == '}' || byte == ']') {
            depth -= depth > 0;
            at++;
        } else if (byte != '"') {
            at++;
        } else {
            const size_t begin = at;
            at = skip_string(text, len, at);
            size_t next = skip_blank(text, len, at);
            if (depth != 1 || next >= len || text[next] != ':')
                continue;
            at = skip_blank(text, len, next + 1);
            if (next - begin < key_len + 2 || memcmp(text + begin + 1, key, key_len) != 0 ||
                text[begin + 1 + key_len] != '"')
                continue;
            const int quoted = at < len && text[at] == '"';
            size_t end = at;
            if (quoted) {
                end = skip_string(text, len, at);
                if (end - at < 2 || text[end - 1] != '"')
                    return found;
            } else {
                while (end < len && strchr("+-.0123456789eE", text[end]) && text[end] != 0)
                    end++;
            }
            const size_t from = quoted ? at + 1 : at;
            const size_t size = quoted ? end - at - 2 : end - at;
            found = size > 0 && size < out_len && !memchr(text + from, '\\', size) &&
                    !memchr(text + from, 0, size);
            if (found) {
                memcpy(out, text + from, size);
                out[size] = 0;
            }
            at = end;
        }
    }
    return found;
}

/* Appends text as a JSON string, whatever bytes it has; returns the new length, at most out_len. */
size_t append_string(char *out, size_t out_len, size_t at, const char *text)
{
    if (at < out_len)
        out[at++] = '"';
    for (const char *p = text; *p && at + 8 < out_len; p++) {
        const unsigned byte = (unsigned char)*p;
        if (byte < 0x20 || byte >= 0x7f || byte == '"' || byte == '\\')
            at += (size_t)snprintf(out + at, out_len - at, "\\u%04x", byte);
        else
            out[at++] = (char)byte;
    }
    if (at < out_len)
        out[at++] = '"';
    return at;
}
