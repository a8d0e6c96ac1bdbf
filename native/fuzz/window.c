/* The replay window beside a list of all that it took: no number twice, none that is too old, and of
 * the others every one. Input: steps, see next_sequence(). */
#include "fuzz.h"

#define STEPS_MAX 512u

typedef struct history {
    uint64_t taken[STEPS_MAX];
    unsigned n;
    uint64_t last;
} history;

/* Near the last one, one that was taken, a number of windows further or back, or any. */
static uint64_t next_sequence(history *h, source *from)
{
    const uint8_t op = take8(from);
    const uint8_t amount = take8(from);
    if (op % 4 == 0)
        return h->last + amount - 16;
    if (op % 4 == 1)
        return h->n ? h->taken[amount % h->n] : 0;
    if (op % 4 == 2)
        return h->last + (uint64_t)((amount & 7) - 2) * (1ull << WN_WINDOW_BITS) + (op >> 2);
    uint64_t any = amount;
    for (int i = 0; i < 7; i++)
        any = any << 8 | take8(from);
    return any;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    source from = {data, size};
    history h = {.n = 0};
    uint64_t current = 0;
    wn_window *window = wn_window_new();
    CHECK(window != NULL);
    while (from.left > 0 && h.n < STEPS_MAX) {
        const uint64_t sequence = next_sequence(&h, &from) & ((1ull << WN_SEQUENCE_BITS) - 1);
        const uint64_t number = sequence >> WN_WINDOW_BITS;
        int fresh = number + 1 >= current;
        for (unsigned i = 0; i < h.n; i++)
            fresh = fresh && h.taken[i] != sequence;
        CHECK(wn_window_accept(window, sequence) == fresh);
        h.last = sequence;
        if (fresh) {
            h.taken[h.n++] = sequence;
            current = number > current ? number : current;
        }
        CHECK(wn_window_current(window) == current);
        /* two bitmaps of 256 KiB and their directories */
        CHECK(wn_window_bytes(window) <= 2 * (1u << (WN_WINDOW_BITS - 3)) + 4096);
    }
    wn_window_free(window);
    return 0;
}
