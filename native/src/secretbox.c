/* secretbox.c - XSalsa20-Poly1305 over several datagrams (spec: sleeve 5.2, NaCl secretbox).
 *
 * Key stream block 0 gives 32 bytes of Poly1305 key, then 32 bytes for the text; text byte i meets key
 * stream byte 32 + i. Poly1305 runs over the ciphertext.
 */
#include <openssl/core_names.h>
#include <sodium.h>

#include "crypto.h"

#define HEAD 32u

void wn_secretbox_key(uint8_t out[WN_KEY_LEN], const uint8_t key[WN_KEY_LEN], uint8_t role)
{
    uint8_t nonce[16] = {role};
    crypto_core_hsalsa20(out, nonce, key, NULL);
}

static void authenticate(const wn_scratch *scratch, uint8_t tag[WN_TAG_LEN], const uint8_t key[HEAD],
                         const uint8_t *text, size_t len)
{
    size_t got = 0;
    if (!scratch->poly || wn_crypto_portable() ||
        !EVP_MAC_init(scratch->poly, key, HEAD, NULL) || !EVP_MAC_update(scratch->poly, text, len) ||
        !EVP_MAC_final(scratch->poly, tag, &got, WN_TAG_LEN))
        crypto_onetimeauth(tag, text, len, key);
}

#if WN_SALSA_X86
static bool wide(void)
{
    return !wn_crypto_portable() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw");
}

typedef struct lanes {
    const uint8_t *key;
    wn_salsa_lane lane[16];
    uint32_t n;
} lanes;

static void flush(lanes *to)
{
    if (to->n == 0)
        return;
    for (uint32_t i = to->n; i < 16; i++)
        to->lane[i] = (wn_salsa_lane){.nonce = to->lane[0].nonce};
    wn_salsa20_avx512(to->key, to->lane);
    to->n = 0;
}

static void add_lane(lanes *to, wn_salsa_lane lane)
{
    to->lane[to->n++] = lane;
    if (to->n == 16)
        flush(to);
}

static uint64_t low_bits(uint32_t n) { return n >= 64 ? ~0ull : (1ull << n) - 1; }

/* All blocks of the text; head (may be NULL) gets the first 32 bytes of key stream. */
static void add_text(lanes *to, uint8_t *data, uint32_t len, uint8_t *head)
{
    uint8_t *text = data + WN_BOX_AT;
    uint32_t left = len - WN_BOX_AT;
    uint32_t first = left < HEAD ? left : HEAD;
    add_lane(to, (wn_salsa_lane){.nonce = data + WN_FIELD_AT,
                                 .dst = text - HEAD, /* masked: not touched before the text */
                                 .mask = low_bits(first) << HEAD,
                                 .head = head});
    text += first;
    left -= first;
    for (uint32_t block = 1; left > 0; block++) {
        uint32_t take = left < 64 ? left : 64;
        add_lane(to, (wn_salsa_lane){.nonce = data + WN_FIELD_AT,
                                     .counter = block,
                                     .dst = text,
                                     .mask = low_bits(take)});
        text += take;
        left -= take;
    }
}

static void seal_wide(wn_scratch *scratch, const uint8_t *key, wn_boxes *boxes)
{
    lanes to = {.key = key};
    for (uint32_t i = 0; i < boxes->n; i++)
        add_text(&to, boxes->data[i], boxes->len[i], scratch->poly_keys[i]);
    flush(&to);
}

static void heads_wide(wn_scratch *scratch, const uint8_t *key, const wn_boxes *boxes)
{
    lanes to = {.key = key};
    for (uint32_t i = 0; i < boxes->n; i++)
        add_lane(&to, (wn_salsa_lane){.nonce = boxes->data[i] + WN_FIELD_AT, .head = scratch->poly_keys[i]});
    flush(&to);
}

static void decrypt_wide(const uint8_t *key, wn_boxes *boxes)
{
    lanes to = {.key = key};
    for (uint32_t i = 0; i < boxes->n; i++)
        if (boxes->good[i])
            add_text(&to, boxes->data[i], boxes->len[i], NULL);
    flush(&to);
}
#endif

/* XOR the whole text with its key stream; poly_key, if not NULL, gets the first 32 bytes of it. */
static void xor_text(const uint8_t *key, uint8_t *data, uint32_t len, uint8_t *poly_key)
{
    static const uint8_t zeros[64];
    uint8_t block[64];
    uint8_t *text = data + WN_BOX_AT;
    uint32_t left = len - WN_BOX_AT;
    crypto_stream_salsa20_xor(block, zeros, sizeof block, data + WN_FIELD_AT, key);
    if (poly_key)
        memcpy(poly_key, block, HEAD);
    for (uint32_t i = 0; i < HEAD && i < left; i++)
        text[i] ^= block[HEAD + i];
    if (left > HEAD)
        crypto_stream_salsa20_xor_ic(text + HEAD, text + HEAD, left - HEAD, data + WN_FIELD_AT, 1, key);
    sodium_memzero(block, sizeof block);
}

void wn_secretbox_seal(wn_scratch *scratch, const uint8_t salsa_key[WN_KEY_LEN], wn_boxes *boxes)
{
#if WN_SALSA_X86
    bool done = wide();
    if (done)
        seal_wide(scratch, salsa_key, boxes);
#else
    bool done = false;
#endif
    for (uint32_t i = 0; i < boxes->n; i++) {
        uint8_t *data = boxes->data[i];
        if (!done)
            xor_text(salsa_key, data, boxes->len[i], scratch->poly_keys[i]);
        authenticate(scratch, data + WN_TAG_AT, scratch->poly_keys[i], data + WN_BOX_AT,
                     boxes->len[i] - WN_BOX_AT);
    }
}

void wn_secretbox_verify(wn_scratch *scratch, const uint8_t salsa_key[WN_KEY_LEN], wn_boxes *boxes)
{
    uint8_t tag[WN_TAG_LEN];
#if WN_SALSA_X86
    bool done = wide();
    if (done)
        heads_wide(scratch, salsa_key, boxes);
#else
    bool done = false;
#endif
    for (uint32_t i = 0; i < boxes->n; i++) {
        const uint8_t *data = boxes->data[i];
        if (!done)
            crypto_stream_salsa20(scratch->poly_keys[i], HEAD, data + WN_FIELD_AT, salsa_key);
        authenticate(scratch, tag, scratch->poly_keys[i], data + WN_BOX_AT, boxes->len[i] - WN_BOX_AT);
        boxes->good[i] = crypto_verify_16(tag, data + WN_TAG_AT) == 0;
    }
}

void wn_secretbox_decrypt(const uint8_t salsa_key[WN_KEY_LEN], wn_boxes *boxes)
{
#if WN_SALSA_X86
    if (wide()) {
        decrypt_wide(salsa_key, boxes);
        return;
    }
#endif
    for (uint32_t i = 0; i < boxes->n; i++)
        if (boxes->good[i])
            xor_text(salsa_key, boxes->data[i], boxes->len[i], NULL);
}
