/* eval_sandbox.c - a child process with little room. */
#include "eval_sandbox.h"

#include "interrupt.h"
#include "terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifdef __linux__
#include <linux/landlock.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#endif

enum { EXIT_NOT_ISOLATED = 125, EXIT_NO_PYTHON = 127 };

/* ---- Isolation, in the child ---- */

#ifdef __linux__
#define WRITES                                                                                     \
    (LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_DIR |                               \
     LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_DIR | \
     LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_SOCK | LANDLOCK_ACCESS_FS_MAKE_FIFO |   \
     LANDLOCK_ACCESS_FS_MAKE_BLOCK | LANDLOCK_ACCESS_FS_MAKE_SYM)

static bool allow_writes_below(int rules, const char *path) {
    struct landlock_path_beneath_attr below = {.allowed_access = WRITES};
    below.parent_fd = open(path, O_PATH | O_CLOEXEC);
    bool ok = below.parent_fd >= 0 &&
              syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &below, 0) == 0;
    close(below.parent_fd);
    return ok;
}

/* From now on this process and its children can write below directory only. */
static bool forbid_writes_outside(const char *directory) {
    const struct landlock_ruleset_attr attr = {.handled_access_fs = WRITES};
    int rules = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof attr, 0);
    if (rules < 0) {
        return false;
    }
    bool ok = allow_writes_below(rules, directory) && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
              syscall(SYS_landlock_restrict_self, rules, 0) == 0;
    close(rules);
    return ok;
}

static bool leave_network(void) {
    return unshare(CLONE_NEWNET) == 0 || unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0;
}
#else
static bool forbid_writes_outside(const char *directory) {
    (void)directory;
    return false;
}

static bool leave_network(void) {
    return false;
}
#endif

static void set_limits(const sandbox_limits *limits) {
    const struct rlimit cpu = {(rlim_t)limits->seconds + 1, (rlim_t)limits->seconds + 1};
    const struct rlimit memory = {(rlim_t)limits->memory_bytes, (rlim_t)limits->memory_bytes};
    const struct rlimit size = {16 << 20, 16 << 20}, files = {64, 64}, core = {0, 0};
    (void)setrlimit(RLIMIT_CPU, &cpu);
    (void)setrlimit(RLIMIT_AS, &memory);
    (void)setrlimit(RLIMIT_FSIZE, &size);
    (void)setrlimit(RLIMIT_NOFILE, &files);
    (void)setrlimit(RLIMIT_CORE, &core);
}

/* Becomes the program. Only calls that are allowed between fork and exec. */
static _Noreturn void become_python(const char *directory, const sandbox_limits *limits) {
    static char *const argv[] = {"python3", "-I", "program.py", NULL};
    static char *const envp[] = {"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/nonexistent",
                                 "LANG=C.UTF-8", NULL};
    setsid();
    int null = open("/dev/null", O_RDWR);
    if (chdir(directory) != 0 || null < 0) {
        _exit(EXIT_NOT_ISOLATED);
    }
    for (int fd = 0; fd <= 2; fd++) {
        dup2(null, fd);
    }
    for (int fd = 3; fd < 1024; fd++) {
        close(fd);
    }
    bool isolated = leave_network();
    isolated = forbid_writes_outside(directory) && isolated;
    if (!isolated && limits->need_isolation) {
        _exit(EXIT_NOT_ISOLATED);
    }
    set_limits(limits);
    static const char *const places[] = {"/usr/bin/python3", "/usr/local/bin/python3",
                                         "/opt/homebrew/bin/python3"};
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        execve(places[i], argv, envp);
    }
    _exit(EXIT_NO_PYTHON);
}

/* ---- The parent ---- */

static bool write_program(const char *directory, const char *program, size_t n_bytes) {
    char path[128];
    snprintf(path, sizeof path, "%s/program.py", directory);
    FILE *file = fopen(path, "wb");
    bool ok = file && fwrite(program, 1, n_bytes, file) == n_bytes;
    ok = file && fclose(file) == 0 && ok;
    if (!ok) {
        cli_failed("cannot write %s: %s", path, strerror(errno));
    }
    return ok;
}

static int remove_entry(const char *path, const struct stat *info, int kind, struct FTW *at) {
    (void)info;
    (void)kind;
    (void)at;
    (void)remove(path);
    return 0;
}

/* Waits for the child, and kills it with all its kin when its time is over. */
static sandbox_result wait_for(pid_t child, double seconds) {
    double end = now_seconds() + seconds;
    int status = 0;
    bool killed = false;
    while (waitpid(child, &status, killed ? 0 : WNOHANG) == 0) {
        if (now_seconds() > end || interrupt_seen()) {
            kill(-child, SIGKILL);
            kill(child, SIGKILL);
            killed = true;
        } else {
            nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
        }
    }
    kill(-child, SIGKILL); /* what it left running */
    if (killed || (WIFSIGNALED(status) && WTERMSIG(status) == SIGXCPU)) {
        return SANDBOX_TIMEOUT;
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_NOT_ISOLATED) {
        cli_failed("this system lets nobody take network and writing away from a process "
                   "(network namespaces and Landlock); --weak-sandbox runs the programs all the "
                   "same");
        return SANDBOX_ERROR;
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_NO_PYTHON) {
        cli_failed("there is no python3 to run the programs with");
        return SANDBOX_ERROR;
    }
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? SANDBOX_PASSED : SANDBOX_FAILED;
}

sandbox_result sandbox_python(const char *program, size_t n_bytes, const sandbox_limits *limits) {
    char directory[] = "/tmp/jang-code-XXXXXX";
    if (!mkdtemp(directory)) {
        cli_failed("cannot make a directory in /tmp: %s", strerror(errno));
        return SANDBOX_ERROR;
    }
    sandbox_result result = SANDBOX_ERROR;
    if (write_program(directory, program, n_bytes)) {
        fflush(NULL);
        pid_t child = fork();
        if (child == 0) {
            become_python(directory, limits);
        }
        if (child < 0) {
            cli_failed("cannot start a process: %s", strerror(errno));
        } else {
            result = wait_for(child, limits->seconds);
        }
    }
    nftw(directory, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    return result;
}
