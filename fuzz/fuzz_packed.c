/* fuzz_packed.c - any model directory whose weights others have packed: legacy JANG v1, AWQ, GPTQ,
 * FP8, MXFP4, MLX. The input is one byte that says which config.json goes with it, and a
 * safetensors file. Every part that is readable is read, as numbers and, where it has codes, as
 * those. */
#include "input_file.h"
#include "quant/kept_codes.h"
#include "quant/parts.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MOST (1 << 16) /* numbers of a part that are read */

static const char *const configs[] = {
    "{}",
    "{\"quantization_config\":{\"quant_method\":\"awq\",\"bits\":4,\"group_size\":32,"
    "\"version\":\"gemm\"}}",
    "{\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":32,"
    "\"desc_act\":true,\"checkpoint_format\":\"gptq\"}}",
    "{\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":3,\"group_size\":-1,"
    "\"checkpoint_format\":\"gptq_v2\"}}",
    "{\"quantization_config\":{\"quant_method\":\"fp8\",\"weight_block_size\":[3,5]}}",
    "{\"quantization\":{\"bits\":4,\"group_size\":32}}",
};

#define N_CONFIGS (sizeof configs / sizeof configs[0])

static void read_codes(ctx_t *ctx, const model_part *part, int64_t rows) {
    kept_form form;
    const char *why;
    if (!kept_codes_form(&form, &why, part)) {
        return;
    }
    size_t words = (size_t)(part->columns * form.bits / 32) + 1;
    size_t groups = (size_t)(part->columns / form.group) + 1;
    uint32_t *space = ctx_array(ctx, words + 2 * groups, sizeof *space * (size_t)rows);
    if (space) {
        uint32_t *scales = space + words * (size_t)rows, *biases = scales + groups * (size_t)rows;
        volatile bool finite = kept_codes_rows(space, scales, biases, &form, part, 0, rows);
        (void)finite;
    }
    ctx_free(ctx, space);
}

static void read_part(ctx_t *ctx, const checkpoint *c, const model_part *part) {
    if (part_check_type(ctx, part) != JANG_OK || part->columns < 1 || part->columns > MOST) {
        return;
    }
    int64_t rows = MOST / part->columns < part->rows ? MOST / part->columns : part->rows;
    float *x = ctx_array(ctx, (size_t)(rows * part->columns) + 1, sizeof *x);
    if (x) {
        jang_status status = part_rows_f32(x, c, part, 0, rows);
        status = part_rows_f32(x, c, part, part->rows - rows, rows);
        (void)status;
        read_codes(ctx, part, rows);
    }
    ctx_free(ctx, x);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    ctx_t *ctx = fuzz_context();
    if (!size) {
        return 0;
    }
    const char *config = configs[data[0] % N_CONFIGS];
    fuzz_file("config.json", (const uint8_t *)config, strlen(config));
    fuzz_file("model.safetensors", data + 1, size - 1);
    checkpoint *c;
    part_list parts;
    if (checkpoint_open(&c, ctx, fuzz_directory(), data[0] & 0x80 ? CHECKPOINT_V1 : 0) != JANG_OK) {
        return 0;
    }
    if (part_list_make(&parts, ctx, c) == JANG_OK) {
        for (size_t i = 0; i < parts.n_parts; i++) {
            read_part(ctx, c, &parts.parts[i]);
        }
        part_list_free(&parts);
    }
    checkpoint_close(c);
    return 0;
}
