// A host in C++: runs a faulted graph in onnxruntime and prints its outputs, the same numbers as in Python.
//
//   host LIBONNXRUNTIME LIBHWFAULT GRAPH.onnx INPUT.f32 SHAPE SEED FIRST_SAMPLE
//
// INPUT.f32 holds the float32 numbers of a batch as they lie in memory, SHAPE is theirs, as 16,1,8,8. With a clean
// graph SEED and FIRST_SAMPLE are left out. Each output is printed on a line of its own, as a hexadecimal float, which
// is exact. No header of onnxruntime is needed: the few functions are called by their slots in its C API.
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "../src/ort_abi.h"

struct OrtEnv;
struct OrtSession;
struct OrtRunOptions;
struct OrtMemoryInfo;

namespace {

using hwfault::ort::Api;
using hwfault::ort::Info;
using hwfault::ort::Slot;
using hwfault::ort::Status;

// What a host calls, beside what a library of ops does.
struct Host : Api {
  using Api::Api;
  Slot<const char*(const OrtStatus*), 2> GetErrorMessage{api};
  Slot<Status(int, const char*, OrtEnv**), 3> CreateEnv{api};
  Slot<Status(const OrtEnv*, const char*, const OrtSessionOptions*, OrtSession**), 7> CreateSession{api};
  Slot<Status(OrtSession*, const OrtRunOptions*, const char* const*, const OrtValue* const*, size_t, const char* const*,
              size_t, OrtValue**),
       9>
      Run{api};
  Slot<Status(OrtSessionOptions**), 10> CreateSessionOptions{api};
  Slot<Status(OrtSessionOptions*, const char*, void**), 29> RegisterCustomOpsLibrary{api};
  Slot<Status(const OrtMemoryInfo*, void*, size_t, const int64_t*, size_t, int, OrtValue**), 49>
      CreateTensorWithDataAsOrtValue{api};
  Slot<Status(const Info*, size_t*), 64> GetTensorShapeElementCount{api};
  Slot<Status(int, int, OrtMemoryInfo**), 69> CreateCpuMemoryInfo{api};

  void check(Status status) const {
    if (!status) return;
    std::string text = GetErrorMessage(status);
    ReleaseStatus(status);
    throw std::runtime_error(text);
  }
};

// A tensor over memory that stays the caller's.
template <class T>
OrtValue* tensor(const Host& ort, const OrtMemoryInfo* memory, std::vector<T>& values, const std::vector<int64_t>& shape,
                 int type) {
  OrtValue* out = nullptr;
  ort.check(ort.CreateTensorWithDataAsOrtValue(memory, values.data(), values.size() * sizeof(T), shape.data(),
                                               shape.size(), type, &out));
  return out;
}

std::vector<float> read_floats(const char* path) {
  std::ifstream file(path, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), {}};
  if (!file) throw std::runtime_error(std::string(path) + " cannot be read");
  const float* first = reinterpret_cast<const float*>(bytes.data());
  return {first, first + bytes.size() / sizeof(float)};
}

const OrtApi* open_onnxruntime(const char* path) {
  void* library = dlopen(path, RTLD_NOW);
  void* entry = library ? dlsym(library, "OrtGetApiBase") : nullptr;
  if (!entry) throw std::runtime_error(dlerror());
  const OrtApi* table = reinterpret_cast<const OrtApiBase* (*)()>(entry)()->GetApi(hwfault::ort::kApiVersion);
  if (!table) throw std::runtime_error("onnxruntime 1.20 or newer is needed");
  return table;
}

void run(int count, char** arguments) {
  const Host ort(open_onnxruntime(arguments[1]));
  OrtEnv* env = nullptr;
  OrtSessionOptions* options = nullptr;
  OrtSession* session = nullptr;
  OrtMemoryInfo* memory = nullptr;
  void* library = nullptr;
  ort.check(ort.CreateEnv(3, "host", &env));  // 3: errors only
  ort.check(ort.CreateSessionOptions(&options));
  ort.check(ort.RegisterCustomOpsLibrary(options, arguments[2], &library));
  ort.check(ort.CreateSession(env, arguments[3], options, &session));
  ort.check(ort.CreateCpuMemoryInfo(1, 0, &memory));  // 1: the arena's allocator, 0: memory for any use

  std::vector<float> values = read_floats(arguments[4]);
  std::vector<int64_t> shape;
  std::stringstream extents(arguments[5]);
  for (std::string extent; std::getline(extents, extent, ',');) shape.push_back(std::stoll(extent));

  std::vector<const char*> names{"input"};
  std::vector<OrtValue*> inputs{tensor(ort, memory, values, shape, hwfault::ort::kFloat)};
  std::vector<int64_t> seed, first_sample;
  if (count > 7) {  // the seed's 64 bits, as a signed number
    seed = {static_cast<int64_t>(std::strtoull(arguments[6], nullptr, 10))}, first_sample = {std::atoll(arguments[7])};
    names.insert(names.end(), {"hwfault_seed", "hwfault_first_sample"});
    for (auto* number : {&seed, &first_sample})
      inputs.push_back(tensor(ort, memory, *number, {}, hwfault::ort::kInt64));
  }
  const char* output_name = "output";
  OrtValue* output = nullptr;
  ort.check(ort.Run(session, nullptr, names.data(), inputs.data(), inputs.size(), &output_name, 1, &output));

  Info* info = nullptr;
  size_t n = 0;
  void* data = nullptr;
  ort.check(ort.GetTensorTypeAndShape(output, &info));
  ort.check(ort.GetTensorShapeElementCount(info, &n));
  ort.check(ort.GetTensorMutableData(output, &data));
  for (size_t i = 0; i < n; ++i) std::printf("%a\n", static_cast<const float*>(data)[i]);
}  // a process that ends here need not release anything

}  // namespace

int main(int count, char** arguments) {
  if (count != 6 && count != 8) {
    std::fprintf(stderr, "usage: host LIBONNXRUNTIME LIBHWFAULT GRAPH INPUT.f32 SHAPE [SEED FIRST_SAMPLE]\n");
    return 2;
  }
  try {
    run(count, arguments);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "host: %s\n", error.what());
    return 1;
  }
}
