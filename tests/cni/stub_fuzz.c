/* Fuzz target of the stub's JSON: any bytes are scanned, and come out of append_string as JSON. */
#include <stdlib.h>
#include <string.h>

#include "stub.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const keys[] = {"cniVersion", "name", "routerSocket", "timeout", ""};
    char found[VALUE_MAX], text[1024], escaped[2048];
    uint8_t *exact = malloc(size ? size : 1); /* so that a read behind the end is seen */

    memcpy(exact, data, size);
    for (size_t key = 0; key < sizeof keys / sizeof *keys; key++)
        if (find_value(exact, size, keys[key], found, sizeof found) && strlen(found) == 0)
            abort();
    free(exact);
    const size_t len = size < sizeof text ? size : sizeof text - 1;
    memcpy(text, data, len);
    text[len] = 0;
    const size_t end = append_string(escaped, sizeof escaped, 0, text);
    if (end < 2 || end > sizeof escaped || escaped[0] != '"' || escaped[end - 1] != '"')
        abort();
    for (size_t at = 1; at + 1 < end; at++)
        if ((unsigned char)escaped[at] < 0x20 || (unsigned char)escaped[at] > 0x7e ||
            escaped[at] == '"')
            abort();
    is_name(text, ID_MAX, (int)(size & 1));
    return 0;
}
