/* One sealed datagram after the other through the scalar calls, by each code that this CPU can run.
 * Whatever does the work, the same bytes come out; what was altered opens nowhere and stays as it is.
 * Input: cipher and roles, key, field, what to alter; the rest are records, and a datagram of their own. */
#include "fuzz.h"

#define ROOM (1u << 16)

static uint64_t take_field(source *from)
{
    uint64_t field = 0;
    for (int i = 0; i < 8; i++)
        field = field << 8 | take8(from);
    return field;
}

/* Opens in a copy of exact size. 1: it opened, text is in out. 0: refused, and the copy was left alone. */
static int opened(int cipher, const uint8_t key[WN_KEY_LEN], int dialled, const uint8_t *data, size_t size,
                  uint8_t *out)
{
    uint8_t *copy = exact_copy(data, size);
    const int code = wn_datagram_open(cipher, key, dialled, copy, size);
    if (code == WN_OK)
        memcpy(out, copy, size);
    else
        CHECK(memcmp(copy, data, size) == 0);
    CHECK((code == WN_ERR_TRUNCATED) == (size < WN_SEALED_MIN));
    CHECK(code == WN_OK || code == WN_ERR_TRUNCATED || code == WN_ERR_RANGE);
    free(copy);
    return code == WN_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t first[ROOM], plain[ROOM];
    source from = {data, size};
    const uint8_t choice = take8(&from);
    const int cipher = choice & 1 ? WN_CIPHER_GCM : WN_CIPHER_SECRETBOX;
    const int dialled = choice >> 1 & 1;
    uint8_t key[WN_KEY_LEN] = {take8(&from), take8(&from)};
    const uint64_t field = take_field(&from);
    const uint16_t where = take16(&from);
    const uint8_t bit = take8(&from);
    size_t len = 0;
    const uint8_t *records = take_bytes(&from, from.left, &len);
    const size_t total = WN_SEALED_MIN + len;
    if (total > 65000)
        return 0;
    for (int portable = 0; portable < 2; portable++) {
        wn_cipher_set_portable(portable);
        uint8_t *sealed = malloc(total);
        CHECK(sealed != NULL);
        memset(sealed, 0xce, WN_SEALED_MIN);
        if (len)
            memcpy(sealed + WN_SEALED_MIN, records, len);
        CHECK(wn_datagram_seal(cipher, key, dialled, field, sealed, total) == WN_OK);
        if (portable == 0)
            memcpy(first, sealed, total);
        CHECK(memcmp(sealed, first, total) == 0);
        CHECK(opened(cipher, key, dialled, sealed, total, plain));
        CHECK(len == 0 || memcmp(plain + WN_SEALED_MIN, records, len) == 0);
        CHECK(!opened(cipher, key, !dialled, sealed, total, plain));
        CHECK(!opened(cipher, key, dialled, sealed, total - 1, plain));
        /* the name is the sender's word for itself, which secretbox does not cover */
        const size_t open_until = cipher == WN_CIPHER_GCM ? 0 : 6;
        sealed[open_until + where % (total - open_until)] ^= (uint8_t)(1u << (bit & 7));
        CHECK(!opened(cipher, key, dialled, sealed, total, plain));
        free(sealed);
        CHECK(!opened(cipher, key, dialled, data, size, plain));
    }
    wn_cipher_set_portable(0);
    return 0;
}
