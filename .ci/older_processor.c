/* Hides instruction sets from a program, so that a new processor looks like an older one.

   Libraries choose their kernels by the instruction CPUID. Linux can make it fault (Intel since Ivy
   Bridge, AMD since Zen 4); this answers it instead, with the bits of newer instructions cleared.
   Everything else runs at full speed. Build it as a shared library and preload it:

       make build/older_processor.so
       FINEGRAIN_PROCESSOR=avx2 LD_PRELOAD=build/older_processor.so program

   "avx2" hides AVX-512, VNNI and AMX, "avx512" hides VNNI and AMX. The exit status is 77 where the
   processor or the kernel cannot do it. */

#define _GNU_SOURCE
#include <cpuid.h>
#include <dlfcn.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define ARCH_SET_CPUID 0x1012
#define BIT(n) (1u << (n))

typedef int sigaction_function(int, const struct sigaction *, struct sigaction *);

static sigaction_function *real_sigaction;
static int hides_avx512;

static long let_cpuid_pass(long passes) {
    return syscall(SYS_arch_prctl, ARCH_SET_CPUID, passes);
}

/* Bits by leaf and subleaf as in Intel's manual, volume 2, CPUID. */
static void hide(unsigned leaf, unsigned subleaf, unsigned *a, unsigned *b, unsigned *c, unsigned *d) {
    if (leaf == 7 && subleaf == 0) {
        *c &= ~BIT(11);                                                /* VNNI */
        *d &= ~(BIT(22) | BIT(24) | BIT(25));                          /* AMX */
        if (hides_avx512) {
            *b &= ~(BIT(16) | BIT(17) | BIT(21) | BIT(26) | BIT(27) | BIT(28) | BIT(30) | BIT(31));
            *c &= ~(BIT(1) | BIT(6) | BIT(12) | BIT(14));
            *d &= ~(BIT(2) | BIT(3) | BIT(8) | BIT(23));
        }
    }
    if (leaf == 7 && subleaf == 1) {
        *a &= ~(BIT(4) | BIT(5) | BIT(21) | BIT(23));                  /* AVX-VNNI, bf16, AMX */
        *d = 0;
    }
}

static void answer(int signal_number, siginfo_t *info, void *context) {
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    const unsigned char *code = (const unsigned char *)registers[REG_RIP];
    unsigned leaf = registers[REG_RAX], subleaf = registers[REG_RCX], a, b, c, d;
    (void)info;
    if (code[0] != 0x0f || code[1] != 0xa2) { /* a real fault: it happens again, and kills */
        signal(signal_number, SIG_DFL);
        return;
    }
    let_cpuid_pass(1);
    __cpuid_count(leaf, subleaf, a, b, c, d);
    let_cpuid_pass(0);
    hide(leaf, subleaf, &a, &b, &c, &d);
    registers[REG_RAX] = a;
    registers[REG_RBX] = b;
    registers[REG_RCX] = c;
    registers[REG_RDX] = d;
    registers[REG_RIP] += 2;
}

/* Python's faulthandler, for one, would take the signal over. */
int sigaction(int signal_number, const struct sigaction *action, struct sigaction *before) {
    if (!real_sigaction)
        real_sigaction = (sigaction_function *)dlsym(RTLD_NEXT, "sigaction");
    if (signal_number == SIGSEGV && action && action->sa_sigaction != answer) {
        if (before)
            memset(before, 0, sizeof *before);
        return 0;
    }
    return real_sigaction(signal_number, action, before);
}

__attribute__((constructor)) static void start(void) {
    const char *processor = getenv("FINEGRAIN_PROCESSOR");
    struct sigaction action = {.sa_sigaction = answer, .sa_flags = SA_SIGINFO | SA_NODEFER};
    if (!processor)
        return;
    hides_avx512 = strcmp(processor, "avx2") == 0;
    sigaction(SIGSEGV, &action, NULL);
    if (let_cpuid_pass(0))
        _exit(77);
}
