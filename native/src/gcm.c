/* gcm.c - AES-256-GCM over several datagrams: Intel's IPsec-MB where it is, else OpenSSL (docs/cipher.md).
 *
 *     nonce (12): role byte | 0 0 0 | field (8)          additional data: the datagram's first 14 bytes
 *     subkey:     HMAC-SHA256(key, "weftnet aes-256-gcm" | role | channel | epoch (8))
 *
 * Role, channel and epoch are in the nonce as well as in the subkey: either alone would do. A subkey
 * serves one window of 2^20 datagrams, so there is no rekeying to agree on and no limit to run into.
 */
#include <sodium.h>
#ifdef WEFT_IPSEC_MB
#include <intel-ipsec-mb.h>
#endif

#include "bytes.h"
#include "crypto.h"

#define NONCE_LEN 12u
#define AAD_LEN WN_TAG_AT

static bool cpu_has_aes(void)
{
#if defined(__x86_64__)
    return __builtin_cpu_supports("aes") && __builtin_cpu_supports("pclmul");
#else
    return false; /* offered nowhere else until it was measured there */
#endif
}

#ifdef WEFT_IPSEC_MB
_Static_assert(sizeof(struct gcm_key_data) <= sizeof ((wn_gcm_key *)0)->expanded, "room for the key schedule");

static IMB_MGR *manager; /* its direct calls keep no state of their own */
static pthread_once_t manager_once = PTHREAD_ONCE_INIT;

static void make_manager(void)
{
    IMB_ARCH arch = IMB_ARCH_NONE;
    if (!cpu_has_aes())
        return;
    IMB_MGR *made = alloc_mb_mgr(0);
    if (!made)
        return;
    init_mb_mgr_auto(made, &arch);
    if (imb_get_errno(made) == 0 && arch >= IMB_ARCH_SSE)
        manager = made;
    else
        free_mb_mgr(made);
}

static IMB_MGR *wide(void)
{
    pthread_once(&manager_once, make_manager);
    return wn_crypto_portable() ? NULL : manager;
}
#endif

static const char *backend(void)
{
#ifdef WEFT_IPSEC_MB
    if (wide())
        return "ipsec-mb";
#endif
    return "openssl";
}

int wn_cipher_offered(int cipher)
{
    return cipher == WN_CIPHER_SECRETBOX || (cipher == WN_CIPHER_GCM && cpu_has_aes());
}

const char *wn_cipher_backend(int cipher)
{
    if (cipher == WN_CIPHER_GCM)
        return backend();
    if (cipher != WN_CIPHER_SECRETBOX)
        return "";
#if WN_SALSA_X86
    if (!wn_crypto_portable() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw"))
        return "avx512";
#endif
    return "libsodium";
}

void wn_gcm_derive(wn_gcm_key *out, const uint8_t key[WN_KEY_LEN], uint8_t role, int df, uint64_t epoch)
{
    uint8_t info[32] = "weftnet aes-256-gcm";
    const size_t label = sizeof "weftnet aes-256-gcm" - 1;
    info[label] = role;
    info[label + 1] = df ? 1 : 0;
    wn_put32(info + label + 2, (uint32_t)(epoch >> 32));
    wn_put32(info + label + 6, (uint32_t)epoch);
    crypto_auth_hmacsha256(out->raw, info, label + 10, key);
    out->epoch = epoch;
    out->valid = true;
#ifdef WEFT_IPSEC_MB
    if (wide())
        IMB_AES256_GCM_PRE(wide(), out->raw, (struct gcm_key_data *)(void *)out->expanded);
#endif
}

static void put_nonce(uint8_t nonce[NONCE_LEN], uint8_t role, const uint8_t *data)
{
    memset(nonce, 0, 4);
    nonce[0] = role;
    memcpy(nonce + 4, data + WN_FIELD_AT, 8);
}

/* OpenSSL's context, keyed. */
static bool keyed(wn_scratch *scratch, const wn_gcm_key *key)
{
    if (scratch->gcm_keyed && memcmp(scratch->gcm_raw, key->raw, WN_KEY_LEN) == 0)
        return true;
    scratch->gcm_keyed = EVP_CipherInit_ex(scratch->gcm, EVP_aes_256_gcm(), NULL, key->raw, NULL, 1) == 1;
    memcpy(scratch->gcm_raw, key->raw, WN_KEY_LEN);
    return scratch->gcm_keyed;
}

static bool evp_run(EVP_CIPHER_CTX *gcm, uint8_t role, uint8_t *data, uint32_t len, bool sealing)
{
    uint8_t nonce[NONCE_LEN];
    int done = 0;
    int text_len = (int)(len - WN_BOX_AT);
    uint8_t *text = data + WN_BOX_AT;
    put_nonce(nonce, role, data);
    return EVP_CipherInit_ex(gcm, NULL, NULL, NULL, nonce, sealing) == 1 &&
           EVP_CipherUpdate(gcm, NULL, &done, data, AAD_LEN) == 1 &&
           (sealing || EVP_CIPHER_CTX_ctrl(gcm, EVP_CTRL_GCM_SET_TAG, WN_TAG_LEN, data + WN_TAG_AT) == 1) &&
           (text_len == 0 || EVP_CipherUpdate(gcm, text, &done, text, text_len) == 1) &&
           EVP_CipherFinal_ex(gcm, text, &done) == 1 &&
           (!sealing || EVP_CIPHER_CTX_ctrl(gcm, EVP_CTRL_GCM_GET_TAG, WN_TAG_LEN, data + WN_TAG_AT) == 1);
}

static void evp_seal(wn_scratch *scratch, const wn_gcm_key *key, uint8_t role, wn_boxes *boxes)
{
    for (uint32_t i = 0; i < boxes->n; i++)
        boxes->good[i] = keyed(scratch, key) && evp_run(scratch->gcm, role, boxes->data[i], boxes->len[i], true);
}

/* GCM's text is XORed with key stream: sealing once more gives back what opening took apart. */
static void evp_open(wn_scratch *scratch, const wn_gcm_key *key, uint8_t role, wn_boxes *boxes)
{
    for (uint32_t i = 0; i < boxes->n; i++) {
        uint8_t *data = boxes->data[i];
        uint8_t tag[WN_TAG_LEN];
        memcpy(tag, data + WN_TAG_AT, WN_TAG_LEN);
        boxes->good[i] = keyed(scratch, key) && evp_run(scratch->gcm, role, data, boxes->len[i], false);
        if (boxes->good[i])
            continue;
        evp_run(scratch->gcm, role, data, boxes->len[i], true);
        memcpy(data + WN_TAG_AT, tag, WN_TAG_LEN);
    }
}

void wn_gcm_seal(wn_scratch *scratch, const wn_gcm_key *key, uint8_t role, wn_boxes *boxes)
{
#ifdef WEFT_IPSEC_MB
    if (wide()) {
        const struct gcm_key_data *expanded = (const void *)key->expanded;
        struct gcm_context_data context;
        for (uint32_t i = 0; i < boxes->n; i++) {
            uint8_t *data = boxes->data[i];
            uint8_t nonce[NONCE_LEN];
            put_nonce(nonce, role, data);
            IMB_AES256_GCM_ENC(manager, expanded, &context, data + WN_BOX_AT, data + WN_BOX_AT,
                               boxes->len[i] - WN_BOX_AT, nonce, data, AAD_LEN, data + WN_TAG_AT, WN_TAG_LEN);
            boxes->good[i] = 1;
        }
        return;
    }
#endif
    evp_seal(scratch, key, role, boxes);
}

void wn_gcm_open(wn_scratch *scratch, const wn_gcm_key *key, uint8_t role, wn_boxes *boxes)
{
#ifdef WEFT_IPSEC_MB
    if (wide()) {
        const struct gcm_key_data *expanded = (const void *)key->expanded;
        struct gcm_context_data context;
        for (uint32_t i = 0; i < boxes->n; i++) {
            uint8_t *data = boxes->data[i];
            uint8_t *text = data + WN_BOX_AT;
            uint64_t text_len = boxes->len[i] - WN_BOX_AT;
            uint8_t nonce[NONCE_LEN];
            uint8_t tag[WN_TAG_LEN];
            put_nonce(nonce, role, data);
            IMB_AES256_GCM_DEC(manager, expanded, &context, text, text, text_len, nonce, data, AAD_LEN, tag,
                               WN_TAG_LEN);
            boxes->good[i] = crypto_verify_16(tag, data + WN_TAG_AT) == 0;
            if (!boxes->good[i]) /* back to what it was */
                IMB_AES256_GCM_ENC(manager, expanded, &context, text, text, text_len, nonce, data, AAD_LEN, tag,
                                   WN_TAG_LEN);
        }
        return;
    }
#endif
    evp_open(scratch, key, role, boxes);
}
