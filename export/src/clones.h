// Functions of which the library holds several versions; the processor's best is taken when it is loaded. Builds with
// sanitizers have one: the choice is made before their runtimes are ready.
#pragma once

#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__GLIBC__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define HWFAULT_CLONES __attribute__((target_clones("arch=x86-64-v4", "avx2", "default")))
#else
#define HWFAULT_CLONES
#endif
