/* window.c - which sequence numbers have been used (spec: sleeve 5.4).
 *
 * Two bitmaps of 2^20 bits, for the current window and the one before it. Each is a directory of pages
 * that are made when a bit in them is first set: a quiet connection costs one page, not 256 KiB.
 */
#include <stdlib.h>

#include "internal.h"

#define PAGE_BITS 14u
#define PAGE_BYTES ((1u << PAGE_BITS) / 8u)
#define PAGES (1u << (WN_WINDOW_BITS - PAGE_BITS))

typedef struct bitmap {
    uint8_t *pages[PAGES];
} bitmap;

struct wn_window {
    uint64_t current;
    bitmap maps[2]; /* by parity of the window's number */
    size_t pages;
};

wn_window *wn_window_new(void) { return calloc(1, sizeof(wn_window)); }

static void empty(wn_window *window, bitmap *map)
{
    for (uint32_t i = 0; i < PAGES; i++) {
        if (map->pages[i])
            window->pages--;
        free(map->pages[i]);
        map->pages[i] = NULL;
    }
}

void wn_window_free(wn_window *window)
{
    if (!window)
        return;
    empty(window, &window->maps[0]);
    empty(window, &window->maps[1]);
    free(window);
}

static int test_and_set(wn_window *window, bitmap *map, uint32_t offset)
{
    uint8_t **page = &map->pages[offset >> PAGE_BITS];
    uint32_t bit = offset & ((1u << PAGE_BITS) - 1u);
    if (!*page) {
        *page = calloc(1, PAGE_BYTES);
        if (!*page)
            return 0; /* better dropped than taken twice */
        window->pages++;
    }
    uint8_t mask = (uint8_t)(1u << (bit & 7u));
    if ((*page)[bit >> 3] & mask)
        return 0;
    (*page)[bit >> 3] |= mask;
    return 1;
}

int wn_window_accept(wn_window *window, uint64_t sequence)
{
    uint64_t number = sequence >> WN_WINDOW_BITS;
    uint32_t offset = (uint32_t)(sequence & ((1u << WN_WINDOW_BITS) - 1u));
    int64_t ahead = (int64_t)(number - window->current);
    if (ahead < -1)
        return 0;
    if (ahead > 0) {
        empty(window, &window->maps[~window->current & 1u]);
        if (ahead > 1)
            empty(window, &window->maps[window->current & 1u]);
        window->current = number;
    }
    return test_and_set(window, &window->maps[number & 1u], offset);
}

uint64_t wn_window_current(const wn_window *window) { return window->current; }

size_t wn_window_bytes(const wn_window *window) { return sizeof *window + window->pages * PAGE_BYTES; }
