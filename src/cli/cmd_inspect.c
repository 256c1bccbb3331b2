/* cmd_inspect.c - jang inspect: what is in a model, as a table or as JSON. */
#include "command.h"
#include "jang.h"
#include "open_model.h"
#include "plan_view.h"
#include "terminal.h"
#include "text_table.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

typedef struct inspect_arguments {
    const char *model;
    bool json;
} inspect_arguments;

static const inspect_arguments inspect_defaults = {0};

static const opt_spec inspect_options[] = {
    {.name = "json",
     .kind = OPT_FLAG,
     .target = offsetof(inspect_arguments, json),
     .help = "Print everything as JSON."},
};

/* Writes a value as it reads best in a cell: text without quotes, shapes as 64x128. */
static void format_value(char *out, size_t n_bytes, const json_t *value) {
    out[0] = 0;
    if (json_is_string(value)) {
        snprintf(out, n_bytes, "%s", json_string_value(value));
    } else if (json_is_number(value)) {
        snprintf(out, n_bytes, json_is_integer(value) ? "%.0f" : "%.2f", json_number_value(value));
    } else if (json_is_boolean(value)) {
        snprintf(out, n_bytes, "%s", json_is_true(value) ? "yes" : "no");
    } else if (json_is_array(value)) {
        size_t at = 0;
        for (size_t i = 0; i < json_array_size(value) && at + 1 < n_bytes; i++) {
            char item[64];
            format_value(item, sizeof item, json_array_get(value, i));
            snprintf(out + at, n_bytes - at, "%s%s", i ? "x" : "", item);
            at += strlen(out + at);
        }
    }
}

static void print_tensors(const json_t *tensors) {
    static const char *const titles[] = {"tensor", "role",  "tier",   ">bits", ">group",
                                         "stored", "shape", ">bytes", NULL};
    static const char *const keys[] = {"name",       "role",  "tier", "bits",
                                       "group_size", "dtype", "shape"};
    text_table table;
    table_init(&table, titles);
    size_t i;
    const json_t *tensor;
    json_array_foreach(tensors, i, tensor) {
        table_row *row = table_add(&table);
        size_t n_keys = sizeof keys / sizeof keys[0];
        for (size_t k = 0; k < n_keys; k++) {
            char cell[TABLE_CELL_BYTES];
            format_value(cell, sizeof cell, json_object_get(tensor, keys[k]));
            table_set(row, k, "%s", cell[0] ? cell : "-");
        }
        double n_bytes = json_number_value(json_object_get(tensor, "bytes"));
        table_set(row, n_keys, "%s", human_bytes(n_bytes).text);
    }
    table_print(&table, stdout);
    table_free(&table);
}

static void print_files(const json_t *files) {
    size_t i;
    const json_t *file;
    json_array_foreach(files, i, file) {
        const char *name = json_string_value(json_object_get(file, "name"));
        double n_bytes = json_number_value(json_object_get(file, "bytes"));
        printf("%10s  ", human_bytes(n_bytes).text);
        print_text(stdout, name ? name : "-", strlen(name ? name : "-"));
        putchar('\n');
    }
}

static void print_member(const json_t *root, const char *key) {
    char text[512];
    format_value(text, sizeof text, json_object_get(root, key));
    printf("%s: ", key);
    print_text(stdout, text, strlen(text));
    putchar('\n');
}

static int print_description(const char *text, size_t n_bytes) {
    json_error_t error;
    json_t *root = json_loadb(text, n_bytes, JSON_ALLOW_NUL, &error);
    if (!root) {
        return cli_failed("the description is not JSON: %s", error.text);
    }
    print_member(root, "path");
    print_member(root, "container");
    print_member(root, "family");
    print_files(json_object_get(root, "files"));
    putchar('\n');
    print_tensors(json_object_get(root, "tensors"));
    putchar('\n');
    plan_print(root);
    json_decref(root);
    return CLI_DONE;
}

static int inspect_run(const void *arguments) {
    const inspect_arguments *a = arguments;
    jang_context *ctx = open_context(0);
    if (!ctx) {
        return CLI_FAILED;
    }
    char *text = NULL;
    size_t n_bytes = 0;
    int code = CLI_DONE;
    jang_status status = jang_inspect(&text, &n_bytes, ctx, a->model);
    if (status != JANG_OK) {
        code = library_failed(ctx, status);
    } else if (a->json) {
        print_text(stdout, text, n_bytes);
        fputs(n_bytes && text[n_bytes - 1] == '\n' ? "" : "\n", stdout);
    } else {
        code = print_description(text, n_bytes);
    }
    jang_free(ctx, text);
    jang_context_free(ctx);
    return code;
}

const cli_command cmd_inspect = {
    .name = "inspect",
    .summary = "show what is in a model: tensors, roles, tiers, bits, bytes",
    .operand = "MODEL",
    .operand_target = offsetof(inspect_arguments, model),
    .details = "MODEL is a directory of safetensors, a .jang or a GGUF file. Nothing but headers "
               "is read.",
    .example = "  jang inspect smol-4m\n"
               "  jang inspect model.gguf --json\n",
    .options = inspect_options,
    .n_options = sizeof inspect_options / sizeof inspect_options[0],
    .defaults = &inspect_defaults,
    .n_default_bytes = sizeof inspect_defaults,
    .run = inspect_run,
};
