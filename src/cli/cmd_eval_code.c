/* cmd_eval_code.c - jang eval code: programs that models write, run against tests.
 *
 * Rows as in HumanEval (arXiv:2107.03374): {"task_id", "prompt", "entry_point", "test"}; a sample
 * is right when prompt + completion + test + check(entry_point) ends without an error. pass@k is
 * that paper's unbiased estimate from n samples of which c are right. */
#include "command.h"
#include "eval_answers.h"
#include "eval_measure.h"
#include "eval_rows.h"
#include "eval_sandbox.h"
#include "eval_shares.h"
#include "interrupt.h"
#include "open_model.h"
#include "terminal.h"

#include <math.h>
#include <string.h>

typedef struct code_arguments {
    text_list models;
    const char *data;
    int64_t n_samples, n_max, limit, seed, n_threads, memory_mb;
    double temp, seconds;
    bool weak, exact, json;
} code_arguments;

static const code_arguments code_defaults = {
    .n_samples = 1, .n_max = 384, .seconds = 10, .memory_mb = 1024};

static const opt_spec code_options[] = {
    {.name = "data",
     .kind = OPT_TEXT,
     .required = true,
     .value = "FILE.jsonl",
     .target = offsetof(code_arguments, data),
     .help = "Tasks as HumanEval has them: task_id, prompt, entry_point, test."},
    {.name = "samples",
     .kind = OPT_INT,
     .value = "N",
     .target = offsetof(code_arguments, n_samples),
     .min = 1,
     .max = 1000,
     .help = "Programs for each task; pass@k is given for k = 1, 10 and 100 up to N."},
    {.name = "temp",
     .kind = OPT_REAL,
     .value = "T",
     .target = offsetof(code_arguments, temp),
     .max = 100,
     .help = "Temperature; 0 always takes the likeliest token."},
    {.name = "seed",
     .kind = OPT_INT,
     .value = "S",
     .target = offsetof(code_arguments, seed),
     .max = INT64_MAX,
     .help = "Seed of the first sample's draws; the next ones count up."},
    {.name = "max-tokens",
     .letter = 'n',
     .kind = OPT_INT,
     .value = "N",
     .target = offsetof(code_arguments, n_max),
     .min = 1,
     .max = INT32_MAX,
     .help = "Most tokens of a program."},
    {.name = "limit",
     .kind = OPT_INT,
     .value = "N",
     .target = offsetof(code_arguments, limit),
     .max = INT64_MAX,
     .help = "Only the first N tasks; 0: all."},
    {.name = "seconds",
     .kind = OPT_REAL,
     .value = "S",
     .target = offsetof(code_arguments, seconds),
     .max = 3600,
     .help = "Time that a program may take."},
    {.name = "memory",
     .kind = OPT_INT,
     .value = "MB",
     .target = offsetof(code_arguments, memory_mb),
     .min = 64,
     .max = 1 << 20,
     .help = "Memory that a program may take."},
    {.name = "weak-sandbox",
     .kind = OPT_FLAG,
     .target = offsetof(code_arguments, weak),
     .help = "Run the programs even where network and writing cannot be taken from them."},
    EVAL_EXACT_OPTION(code_arguments),
    EVAL_JSON_OPTION(code_arguments),
    THREADS_OPTION(code_arguments),
};

/* ---- Writing a program ---- */

/* Where a completion of a function's body is over: what begins a line without an indent. */
static const char *const body_ends[] = {"\nclass ", "\ndef ", "\n#",      "\nif ",
                                        "\nprint",  "\n@",    "\nassert", "\n```"};

static size_t body_length(const tbuf *text) {
    size_t least = text->n;
    for (size_t i = 0; i < sizeof body_ends / sizeof body_ends[0]; i++) {
        const char *at = text->n ? strstr(text->data, body_ends[i]) : NULL;
        if (at && (size_t)(at - text->data) < least) {
            least = (size_t)(at - text->data);
        }
    }
    return least;
}

static bool body_is_over(void *user, const tbuf *text) {
    (void)user;
    return body_length(text) < text->n;
}

/* ---- Tasks ---- */

typedef struct code_task {
    const json_t *row;
    const char *prompt, *test, *entry_point; /* borrowed from the row */
} code_task;

static bool read_task(code_task *t, const json_t *row, const char *path, size_t number) {
    *t = (code_task){.row = row};
    return (t->prompt = row_text(row, "prompt", path, number)) &&
           (t->test = row_text(row, "test", path, number)) &&
           (t->entry_point = row_text(row, "entry_point", path, number));
}

typedef struct code_job {
    const code_arguments *a;
    jang_context *ctx;
    jang_model *model;
    jang_session *session;
    json_t *rows;
} code_job;

/* One sample of one task: false when it could not be had at all. */
static bool try_sample(bool *right, const code_job *j, const code_task *task, uint64_t seed) {
    const code_arguments *a = j->a;
    const answer_options options = {
        .n_max = (size_t)a->n_max,
        .sampling = {.temperature = (float)a->temp, .top_p = 1, .seed = seed},
        .raw = true,
        .stop = body_is_over,
    };
    const sandbox_limits limits = {a->seconds, (size_t)a->memory_mb << 20, !a->weak};
    tbuf body = {0}, program = {0};
    bool ok = answer_prompt(&body, j->ctx, j->session, j->model, task->row, &options);
    if (ok) {
        tbuf_printf(&program, "%s", task->prompt);
        tbuf_add(&program, body.data, body_length(&body));
        tbuf_printf(&program, "\n\n%s\n\ncheck(%s)\n", task->test, task->entry_point);
        ok = !program.failed;
    }
    if (ok) {
        sandbox_result result = sandbox_python(program.data, program.n, &limits);
        *right = result == SANDBOX_PASSED;
        ok = result != SANDBOX_ERROR;
    }
    tbuf_free(&body);
    tbuf_free(&program);
    return ok;
}

/* ---- Figures ---- */

/* 1 - C(n - c, k) / C(n, k) */
static double pass_at(int64_t n, int64_t c, int64_t k) {
    if (n - c < k) {
        return 1;
    }
    double none = 1;
    for (int64_t i = n - c + 1; i <= n; i++) {
        none *= 1 - (double)k / (double)i;
    }
    return 1 - none;
}

static const int64_t all_k[] = {1, 10, 100};

typedef struct code_figures {
    eval_sample pass[3]; /* of each k, a value for each task */
} code_figures;

static void enter_task(code_figures *f, int64_t n, int64_t n_right) {
    for (size_t i = 0; i < 3 && all_k[i] <= n; i++) {
        sample_add(&f->pass[i], pass_at(n, n_right, all_k[i]));
        sample_end_cluster(&f->pass[i]);
    }
}

static bool run_tasks(code_figures *f, const code_job *j) {
    size_t i;
    const json_t *row;
    json_array_foreach(j->rows, i, row) {
        code_task task;
        int64_t n_right = 0;
        if (!read_task(&task, row, j->a->data, i)) {
            return false;
        }
        for (int64_t s = 0; s < j->a->n_samples; s++) {
            bool right = false;
            if (!try_sample(&right, j, &task, (uint64_t)(j->a->seed + s))) {
                return false;
            }
            n_right += right;
        }
        enter_task(f, j->a->n_samples, n_right);
        if (is_terminal(stderr)) {
            fprintf(stderr, "\r\033[K%zu of %zu tasks", i + 1, json_array_size(j->rows));
        }
    }
    if (is_terminal(stderr)) {
        fputs("\r\033[K", stderr);
    }
    return true;
}

static bool run_model(json_t *results, code_job *j, const char *path) {
    code_figures f = {0};
    bool ok = false;
    j->model = open_model(j->ctx, path, j->a->exact);
    if (j->model) {
        jang_status status = jang_session_new(&j->session, j->model, NULL);
        ok = status == JANG_OK ? run_tasks(&f, j) : !library_failed(j->ctx, status);
    }
    json_t *o =
        json_pack("{s:s, s:I}", "model", path, "tasks", (json_int_t)json_array_size(j->rows));
    for (size_t i = 0; ok && i < 3 && all_k[i] <= j->a->n_samples; i++) {
        eval_summary s;
        char name[32];
        ok = sample_summary(&s, &f.pass[i]);
        snprintf(name, sizeof name, "pass@%lld", (long long)all_k[i]);
        json_object_set_new(
            o, name,
            json_pack("{s:f, s:f}", "mean", s.mean, "error", isfinite(s.error) ? s.error : 0));
    }
    json_array_append_new(results, o);
    for (size_t i = 0; i < 3; i++) {
        sample_free(&f.pass[i]);
    }
    jang_session_free(j->session);
    jang_model_free(j->model);
    j->session = NULL;
    return ok;
}

/* ---- The command ---- */

static int code_run(const void *arguments) {
    const code_arguments *a = arguments;
    interrupt_catch();
    code_job job = {.a = a, .ctx = open_context(a->n_threads)};
    json_t *results = json_array();
    bool ok = job.ctx && (job.rows = rows_read(a->data, (size_t)a->limit)) != NULL;
    for (size_t i = 0; ok && i < a->models.n; i++) {
        ok = run_model(results, &job, a->models.items[i]);
    }
    static const share_column columns[] = {{">pass@1 %", "pass@1", NULL},
                                           {">pass@10 %", "pass@10", NULL},
                                           {">pass@100 %", "pass@100", NULL}};
    if (ok) {
        shares_print(results, a->json, "tasks", columns, 3);
    }
    json_decref(results);
    json_decref(job.rows);
    jang_context_free(job.ctx);
    return ok ? CLI_DONE : CLI_FAILED;
}

const cli_command cmd_eval_code = {
    .name = "eval code",
    .summary = "programs that models write, run against tests (HumanEval style)",
    .operand = "MODEL",
    .operand_target = offsetof(code_arguments, models),
    .many_operands = true,
    .details = "The programs run in children without network, that can write only into a directory "
               "of their own and have limits on time and memory; they can read what you can read.",
    .example = "  jang eval code coder-4m coder-2s --data HumanEval.jsonl\n",
    .options = code_options,
    .n_options = sizeof code_options / sizeof code_options[0],
    .defaults = &code_defaults,
    .n_default_bytes = sizeof code_defaults,
    .run = code_run,
};
