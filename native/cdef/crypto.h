/* What Python may call of native/include/weft_crypto.h, without comments and directives. A test keeps
 * them equal. */
typedef struct wn_datapath wn_datapath;
typedef struct wn_batch wn_batch;
#define WN_SEAL_LEN ...
#define WN_SEALED_MIN ...
#define WN_KEY_LEN ...
#define WN_SEQUENCE_BITS ...
#define WN_WINDOW_BITS ...
enum { WN_CIPHER_NONE = 0, WN_CIPHER_SECRETBOX = 1, WN_CIPHER_GCM = 2 };
int wn_cipher_offered(int cipher);
const char *wn_cipher_backend(int cipher);
void wn_cipher_set_portable(int portable);
typedef struct wn_window wn_window;
wn_window *wn_window_new(void);
void wn_window_free(wn_window *window);
int wn_window_accept(wn_window *window, uint64_t sequence);
uint64_t wn_window_current(const wn_window *window);
size_t wn_window_bytes(const wn_window *window);
int wn_datagram_seal(int cipher, const uint8_t key[32], int sender_dialled, uint64_t field, uint8_t *data,
                     size_t len);
int wn_datagram_open(int cipher, const uint8_t key[32], int sender_dialled, uint8_t *data, size_t len);
typedef struct wn_session_info {
    uint8_t cipher;
    uint8_t outbound;
    uint64_t next_df;
    uint64_t next_frag;
    uint64_t window_df;
    uint64_t window_frag;
} wn_session_info;
int wn_forwarder_set_key(wn_datapath *dp, uint16_t forwarder, int cipher, const uint8_t key[32], int outbound);
int wn_forwarder_set_sequence(wn_datapath *dp, uint16_t forwarder, int df, uint64_t next);
int wn_forwarder_get_session(wn_datapath *dp, uint16_t forwarder, wn_session_info *out);
int wn_batch_put_message(wn_datapath *dp, wn_batch *batch, uint16_t forwarder, int df, const uint8_t *records,
                         size_t len);
int wn_seal(wn_datapath *dp, wn_batch *batch);
int wn_open(wn_datapath *dp, wn_batch *batch);
