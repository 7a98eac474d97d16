// Functions of which the library holds several versions; the processor's best is taken when it is loaded.
#pragma once

#if defined(HWFAULT_CLONES)  // a build for sanitizers, say, wants one version of each
#define HWFAULT_ONE_VERSION
#elif defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__GLIBC__)
#define HWFAULT_CLONES __attribute__((target_clones("arch=x86-64-v4", "avx2", "default")))
#else
#define HWFAULT_CLONES
#endif

// Before a loop that writes y[i] and of x reads no more than x[i]: y may be x.
#if defined(__clang__)
#define HWFAULT_EACH_ALONE _Pragma("clang loop vectorize(assume_safety)")
#elif defined(__GNUC__)
#define HWFAULT_EACH_ALONE _Pragma("GCC ivdep")
#else
#define HWFAULT_EACH_ALONE
#endif
