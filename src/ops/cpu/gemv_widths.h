/* gemv_widths.h - a GEMV for each width, group size and number of rows of x, of one body.
 *
 * The including file defines NAME(kernel), GEMV_TOKENS and
 *     gemv_rows(w, x, from, to, y, y_stride, bits, group, n_tok)
 * which is inlined where bits, group and n_tok (1 or GEMV_TOKENS, which is 4) are constants. */

typedef void (*gemv_fn)(const weight_desc *w, const q8_rows *x, int64_t from, int64_t to, float *y,
                        int64_t y_stride);

#define GEMV(bits, group, n_tok)                                                                   \
    static void NAME(kern_gemv_q8_q##bits##_g##group##_x##n_tok)(                                  \
        const weight_desc *w, const q8_rows *x, int64_t from, int64_t to, float *y,                \
        int64_t y_stride) {                                                                        \
        gemv_rows(w, x, from, to, y, y_stride, bits, group, n_tok);                                \
    }
#define GEMV_OF_GROUP(bits, group) GEMV(bits, group, 1) GEMV(bits, group, 4)
#define GEMV_OF_BITS(bits) GEMV_OF_GROUP(bits, 32) GEMV_OF_GROUP(bits, 64) GEMV_OF_GROUP(bits, 128)
FOR_EACH_WIDTH(GEMV_OF_BITS)

#define NAMES_OF_GROUP(bits, group)                                                                \
    { NAME(kern_gemv_q8_q##bits##_g##group##_x1), NAME(kern_gemv_q8_q##bits##_g##group##_x4) }
#define NAMES(bits)                                                                                \
    { NAMES_OF_GROUP(bits, 32), NAMES_OF_GROUP(bits, 64), NAMES_OF_GROUP(bits, 128) }

/* What affine_kernels calls gemv. */
static void gemv_by_width(const weight_desc *w, const q8_rows *x, int64_t from, int64_t to,
                          float *y, int64_t y_stride) {
    /* [bits][group 32, 64, 128][1, 4 rows of x] */
    static const gemv_fn fns[9][3][2] = {[2] = NAMES(2), [3] = NAMES(3), [4] = NAMES(4),
                                         [5] = NAMES(5), [6] = NAMES(6), [8] = NAMES(8)};
    for (int64_t t = 0; t < x->n_row;) {
        bool four = x->n_row - t >= GEMV_TOKENS;
        q8_rows part = q8_part(x, t, four ? GEMV_TOKENS : 1);
        fns[w->bits][w->group / 64][four](w, &part, from, to, y + t * y_stride, y_stride);
        t += part.n_row;
    }
}
