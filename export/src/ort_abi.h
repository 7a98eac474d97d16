// The part of onnxruntime's C ABI that a custom op library needs.
//
// No onnxruntime package carries its headers, but the ABI only ever grows at its end, so these few declarations hold
// from API version 18 (onnxruntime 1.18) on. OrtApi is a table of function pointers; each is named here by its slot.
#pragma once

#include <cstddef>
#include <cstdint>

extern "C" {

struct OrtStatus;
struct OrtSessionOptions;
struct OrtCustomOpDomain;
struct OrtKernelInfo;
struct OrtKernelContext;
struct OrtShapeInferContext;
struct OrtTensorTypeAndShapeInfo;
struct OrtValue;
struct OrtApi;

struct OrtApiBase {
  const OrtApi* (*GetApi)(uint32_t version);
  const char* (*GetVersionString)();  // "1.20.1"
};

struct OrtCustomOp {
  uint32_t version;
  void* (*CreateKernel)(const OrtCustomOp*, const OrtApi*, const OrtKernelInfo*);
  const char* (*GetName)(const OrtCustomOp*);
  const char* (*GetExecutionProviderType)(const OrtCustomOp*);
  int (*GetInputType)(const OrtCustomOp*, size_t);
  size_t (*GetInputTypeCount)(const OrtCustomOp*);
  int (*GetOutputType)(const OrtCustomOp*, size_t);
  size_t (*GetOutputTypeCount)(const OrtCustomOp*);
  void (*KernelCompute)(void*, OrtKernelContext*);
  void (*KernelDestroy)(void*);
  int (*GetInputCharacteristic)(const OrtCustomOp*, size_t);
  int (*GetOutputCharacteristic)(const OrtCustomOp*, size_t);
  int (*GetInputMemoryType)(const OrtCustomOp*, size_t);
  int (*GetVariadicInputMinArity)(const OrtCustomOp*);
  int (*GetVariadicInputHomogeneity)(const OrtCustomOp*);
  int (*GetVariadicOutputMinArity)(const OrtCustomOp*);
  int (*GetVariadicOutputHomogeneity)(const OrtCustomOp*);
  OrtStatus* (*CreateKernelV2)(const OrtCustomOp*, const OrtApi*, const OrtKernelInfo*, void**);
  OrtStatus* (*KernelComputeV2)(void*, OrtKernelContext*);
  OrtStatus* (*InferOutputShapeFn)(const OrtCustomOp*, OrtShapeInferContext*);
  int (*GetStartVersion)(const OrtCustomOp*);
  int (*GetEndVersion)(const OrtCustomOp*);
  size_t (*GetMayInplace)(int**, int**);
  void (*ReleaseMayInplace)(int*, int*);
  size_t (*GetAliasMap)(int**, int**);
  void (*ReleaseAliasMap)(int*, int*);
};

}  // extern "C"

namespace hwfault::ort {

constexpr uint32_t kApiVersion = 18;  // the first in which ops may work in place

static_assert(sizeof(void*) != 8 || sizeof(OrtCustomOp) == 208, "OrtCustomOp has 26 members");
static_assert(sizeof(void*) != 8 || offsetof(OrtCustomOp, GetName) == 16, "");
static_assert(sizeof(void*) != 8 || offsetof(OrtCustomOp, CreateKernelV2) == 136, "");
static_assert(sizeof(void*) != 8 || offsetof(OrtCustomOp, KernelComputeV2) == 144, "");
static_assert(sizeof(void*) != 8 || offsetof(OrtCustomOp, InferOutputShapeFn) == 152, "");
static_assert(sizeof(void*) != 8 || offsetof(OrtCustomOp, GetStartVersion) == 160, "");
static_assert(sizeof(void*) != 8 || offsetof(OrtCustomOp, GetMayInplace) == 176, "");

// Tensor element types of the C API.
enum ElementType : int {
  kFloat = 1,
  kUint8 = 2,
  kInt8 = 3,
  kUint16 = 4,
  kInt16 = 5,
  kInt32 = 6,
  kInt64 = 7,
  kDouble = 11
};

// The C function types, by name; `Slot<F, n>` calls the n-th function of the table.
template <class F, size_t slot>
struct Slot;
template <class R, class... A, size_t slot>
struct Slot<R(A...), slot> {
  const OrtApi* api;
  R operator()(A... arguments) const {
    return reinterpret_cast<R (*const*)(A...)>(api)[slot](arguments...);
  }
};

using Status = OrtStatus*;
using Info = OrtTensorTypeAndShapeInfo;

struct Api {
  // `minor` is n of onnxruntime 1.n: the version of the API as well
  explicit Api(const OrtApi* table, int minor = 0) : api(table), shows_shapes(minor >= 24) {}
  const OrtApi* api;
  bool shows_shapes;  // whether the table has GetTensorElementTypeAndShapeDataReference

  Slot<Status(int, const char*), 0> CreateStatus{api};
  Slot<Status(const char*, OrtCustomOpDomain**), 26> CreateCustomOpDomain{api};
  Slot<Status(OrtCustomOpDomain*, const OrtCustomOp*), 27> CustomOpDomain_Add{api};
  Slot<Status(OrtSessionOptions*, OrtCustomOpDomain*), 28> AddCustomOpDomain{api};
  Slot<Status(OrtValue*, void**), 51> GetTensorMutableData{api};
  Slot<Status(const Info*, size_t*), 61> GetDimensionsCount{api};
  Slot<Status(const Info*, int64_t*, size_t), 62> GetDimensions{api};
  Slot<Status(const Info*, const char**, size_t), 63> GetSymbolicDimensions{api};
  Slot<Status(const OrtValue*, Info**), 65> GetTensorTypeAndShape{api};
  Slot<Status(const OrtKernelInfo*, const char*, float*), 85> KernelInfoGetAttribute_float{api};
  Slot<Status(const OrtKernelInfo*, const char*, int64_t*), 86> KernelInfoGetAttribute_int64{api};
  Slot<Status(const OrtKernelInfo*, const char*, char*, size_t*), 87> KernelInfoGetAttribute_string{api};
  Slot<Status(const OrtKernelContext*, size_t*), 88> KernelContext_GetInputCount{api};
  Slot<Status(const OrtKernelContext*, size_t, const OrtValue**), 90> KernelContext_GetInput{api};
  Slot<Status(OrtKernelContext*, size_t, const int64_t*, size_t, OrtValue**), 91> KernelContext_GetOutput{api};
  Slot<void(Status), 93> ReleaseStatus{api};
  Slot<void(Info*), 99> ReleaseTensorTypeAndShapeInfo{api};
  Slot<Status(const OrtKernelInfo*, const char*, float*, size_t*), 162> KernelInfoGetAttributeArray_float{api};
  Slot<Status(const OrtKernelInfo*, const char*, int64_t*, size_t*), 163> KernelInfoGetAttributeArray_int64{api};
  Slot<Status(const OrtKernelInfo*, char*, size_t*), 244> KernelInfo_GetNodeName{api};
  Slot<Status(const OrtKernelInfo*, size_t, int*, const OrtValue**), 249> KernelInfoGetConstantInput_tensor{api};
  Slot<Status(const OrtShapeInferContext*, size_t, Info**), 268> ShapeInferContext_GetInputTypeShape{api};
  Slot<Status(const OrtShapeInferContext*, size_t, const Info*), 270> ShapeInferContext_SetOutputTypeShape{api};
  Slot<Status(const OrtKernelContext*, void (*)(void*, size_t), size_t, size_t, void*), 274> KernelContext_ParallelFor{
      api};
  Slot<Status(const OrtValue*, int*, const int64_t**, size_t*), 414> GetTensorElementTypeAndShapeDataReference{api};
};

}  // namespace hwfault::ort
