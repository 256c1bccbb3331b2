/* cmd_template.c - jang template: a chat template and a context in, the prompt out. */
#include "command.h"
#include "jang.h"
#include "open_model.h"
#include "read_input.h"
#include "terminal.h"

#include <stdlib.h>
#include <string.h>

typedef struct template_arguments {
    const char *file, *input;
} template_arguments;

static const template_arguments template_defaults = {0};

static const opt_spec template_options[] = {
    {.name = "file",
     .kind = OPT_TEXT,
     .required = true,
     .value = "FILE",
     .target = offsetof(template_arguments, file),
     .help = "The template, as in chat_template.jinja."},
    {.name = "input",
     .letter = 'i',
     .kind = OPT_TEXT,
     .required = true,
     .value = "FILE",
     .target = offsetof(template_arguments, input),
     .help = "The context, a JSON object; - is standard input."},
};

static int render(jang_context *ctx, const char *name, const char *text, size_t n_text,
                  const char *context) {
    char *prompt = NULL;
    size_t n_prompt = 0;
    jang_status status = jang_template_render(&prompt, &n_prompt, ctx, name, text, n_text, context);
    if (status != JANG_OK) {
        return library_failed(ctx, status);
    }
    print_text(stdout, prompt, n_prompt);
    jang_free(ctx, prompt);
    return CLI_DONE;
}

static int template_run(const void *arguments) {
    const template_arguments *a = arguments;
    int code = CLI_FAILED;
    char *text = NULL, *context = NULL;
    size_t n_text = 0, n_context = 0;
    jang_context *ctx = open_context(1);
    if (!ctx || !read_whole(&text, &n_text, a->file) ||
        !read_whole(&context, &n_context, a->input)) {
        goto done;
    }
    if (strlen(context) != n_context) {
        code = cli_failed("%s: not JSON: it has a 0 byte", a->input);
        goto done;
    }
    code = render(ctx, a->file, text, n_text, context);
done:
    free(text);
    free(context);
    jang_context_free(ctx);
    return code;
}

const cli_command cmd_template = {
    .name = "template",
    .summary = "render a chat template with a context",
    .details = "The context is a JSON object whose members are the template's variables: messages, "
               "tools, add_generation_prompt and any other. The rendering goes to standard output "
               "as it is, with no line feed added.",
    .example = "  jang template --file chat_template.jinja --input context.json\n"
               "  echo '{\"messages\": []}' | jang template --file chat_template.jinja --input -\n",
    .options = template_options,
    .n_options = sizeof template_options / sizeof template_options[0],
    .defaults = &template_defaults,
    .n_default_bytes = sizeof template_defaults,
    .run = template_run,
};
