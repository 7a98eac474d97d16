// What every custom op does alike: attributes, tensors, errors with the node's name, work shared out to the session's
// own threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <climits>
#include <memory>
#include <mutex>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "ort_abi.h"
#include "parts.h"
#include "program.h"

namespace hwfault::ort {

// Throws Error with onnxruntime's own text if a call failed.
void check(const Api& api, Status status);

// Gives output 0 the shape of input 0, if that is known.
void infer_shape(const Api& api, OrtShapeInferContext* context);

// A node's name and attributes, while its kernel is made.
class NodeInfo {
 public:
  NodeInfo(const Api& api, const OrtKernelInfo* info) : api_(api), info_(info) {}
  std::string name() const;
  int64_t integer(const char* attribute) const;  // throws Error if there is none
  int64_t integer(const char* attribute, int64_t otherwise) const;  // throws Error if it is no integer
  // throws Error unless least <= value <= most
  int64_t integer(const char* attribute, int64_t otherwise, int64_t least, int64_t most) const;
  float number(const char* attribute, float otherwise) const;
  std::string text(const char* attribute, const char* otherwise) const;
  // throws Error if there is none, or answers with an empty list where it is not required
  std::vector<int64_t> integers(const char* attribute, bool required = true) const;
  // `count` integers, or `otherwise` if there are none; throws Error unless least <= each <= most
  std::vector<int64_t> integers(const char* attribute, size_t count, std::vector<int64_t> otherwise, int64_t least,
                                int64_t most) const;
  // whether each of its first `count` inputs is a constant of the graph
  bool reads_constants(size_t count) const;

 private:
  bool found(Status status) const;
  void expect_absent(const char* attribute, const char* type) const;
  void expect_within(const char* attribute, int64_t value, int64_t least, int64_t most) const;
  const Api& api_;
  const OrtKernelInfo* info_;
};

using Shape = std::vector<int64_t>;
// throws Error from 2^63 on, lengths of 0 not counted, so that no product of some of the lengths is larger
int64_t element_count(const Shape& shape);
std::string text_of(const Shape& shape);

template <class T>
struct Tensor {
  T* data;
  Shape shape;
  int64_t size() const { return element_count(shape); }
};

// The inputs and outputs of one execution of a node.
class Context {
 public:
  Context(const Api& api, OrtKernelContext* context) : api_(api), context_(context) {}

  size_t input_count() const;
  template <class T>
  Tensor<const T> input(size_t index) const {
    auto [data, shape] = raw_input(index);
    return {static_cast<const T*>(data), std::move(shape)};
  }
  // the value of an input that holds just one; `what` names it in the error otherwise
  template <class T>
  T scalar(size_t index, const char* what) const {
    const Tensor<const T> tensor = input<T>(index);
    if (tensor.size() != 1)
      throw Error(std::string(what) + " has shape " + text_of(tensor.shape) + ", expected one value");
    return *tensor.data;
  }
  template <class T>
  T* output(const Shape& shape) const {
    return static_cast<T*>(raw_output(shape));
  }
  // the same for an op whose attributes say how large it is; throws Error before memory is taken for too many values
  template <class T>
  T* reshaped(const Shape& shape) const {
    constexpr int64_t kMost = int64_t{1} << 31;
    if (element_count(shape) > kMost)
      throw Error("the result would have shape " + text_of(shape) + ", expected at most 2^31 values");
    return output<T>(shape);
  }

  // work(first, last) over [0, count) in parts of `part`, on the session's threads; throws what work threw first
  template <class F>
  void share_out(int64_t count, int64_t part, F work) const {
    const int64_t parts = (count + part - 1) / part;
    if (parts <= 1) return work(int64_t{0}, count);
    struct Job {
      F* work;
      int64_t count, part;
      Parts done{};
    } job{&work, count, part};
    parallel_for(
        [](void* user, size_t i) {
          Job& j = *static_cast<Job*>(user);
          j.done.run([&] {
            const int64_t first = static_cast<int64_t>(i) * j.part;
            (*j.work)(first, std::min(first + j.part, j.count));
          });
        },
        static_cast<size_t>(parts), &job);
    job.done.finish();
  }

 private:
  std::pair<void*, Shape> raw_input(size_t index) const;
  void* raw_output(const Shape& shape) const;
  void parallel_for(void (*function)(void*, size_t), size_t total, void* user) const;
  const Api& api_;
  OrtKernelContext* context_;
};

// The output of a node whose inputs are constants, of the shape of input 0: computed at its first run and copied at all
// others. Threads that run a session side by side may each compute it once.
class Kept {
 public:
  // compute() writes the output of the node that runs now
  template <class F>
  void answer(const Context& context, F compute) {
    if (ready_.load(std::memory_order_acquire)) return copy_to(context);
    compute();
    keep(context);
  }

 private:
  void copy_to(const Context& context) const;
  void keep(const Context& context);
  std::mutex alone_;
  std::atomic<bool> ready_{false};
  std::vector<float> values_;
  Shape shape_;
};

// How many inputs of K a node must have: all, or the first K::required.
template <class K, class = void>
struct RequiredInputs {
  static constexpr size_t count = K::inputs.size();
};
template <class K>
struct RequiredInputs<K, std::void_t<decltype(K::required)>> {
  static constexpr size_t count = K::required;
};

// Whether output 0 has the shape of input 0: yes, unless K::reshapes.
template <class K, class = void>
struct KeepsShape : std::true_type {};
template <class K>
struct KeepsShape<K, std::void_t<decltype(K::reshapes)>> : std::false_type {};

// Whether output 0 may take the memory of input 0, when nobody else reads that: if there is a K::in_place.
template <class K, class = void>
struct InPlace : std::false_type {};
template <class K>
struct InPlace<K, std::void_t<decltype(K::in_place)>> : std::true_type {};

// Whether output 0 is a function of the inputs alone, and in float: then it is kept where these are constants of the
// graph. If there is a K::of_inputs_alone.
template <class K, class = void>
struct OfInputsAlone : std::false_type {};
template <class K>
struct OfInputsAlone<K, std::void_t<decltype(K::of_inputs_alone)>> : std::true_type {};

// An OrtCustomOp around a class with `static constexpr const char* name`, `static constexpr std::array inputs` (the
// element types), a constructor from NodeInfo and `void compute(const Context&) const`. Its output 0 has the type and,
// unless there is a `reshapes`, the shape of input 0.
template <class K>
struct Op : OrtCustomOp {
  explicit Op(const Api& api) : OrtCustomOp{}, api_(api) {
    version = kApiVersion;
    GetName = [](const OrtCustomOp*) { return K::name; };
    GetExecutionProviderType = [](const OrtCustomOp*) -> const char* { return nullptr; };
    GetInputType = [](const OrtCustomOp*, size_t i) { return static_cast<int>(K::inputs[i]); };
    GetInputTypeCount = [](const OrtCustomOp*) { return K::inputs.size(); };
    GetOutputType = [](const OrtCustomOp*, size_t) { return static_cast<int>(K::inputs[0]); };
    GetOutputTypeCount = [](const OrtCustomOp*) -> size_t { return 1; };
    KernelDestroy = [](void* kernel) { delete static_cast<Kernel*>(kernel); };
    GetInputCharacteristic = [](const OrtCustomOp*, size_t i) { return i < RequiredInputs<K>::count ? 0 : 1; };
    GetOutputCharacteristic = [](const OrtCustomOp*, size_t) { return 0; };
    GetInputMemoryType = [](const OrtCustomOp*, size_t) { return 0; };
    GetVariadicInputMinArity = GetVariadicOutputMinArity = [](const OrtCustomOp*) { return 0; };
    GetVariadicInputHomogeneity = GetVariadicOutputHomogeneity = [](const OrtCustomOp*) { return 0; };
    CreateKernelV2 = create;
    KernelComputeV2 = compute;
    InferOutputShapeFn = infer;
    GetMayInplace = InPlace<K>::value ? first_in_place : nullptr;
    ReleaseMayInplace = [](int* input, int* output) { delete input, delete output; };
    GetStartVersion = [](const OrtCustomOp*) { return 1; };
    GetEndVersion = [](const OrtCustomOp*) { return INT_MAX; };
  }

 private:
  struct Kernel {
    const Api& api;
    std::string node;
    std::unique_ptr<K> k;
    std::unique_ptr<Kept> kept;
  };

  // runs f, turning an exception into a status that names op and node: nothing may be thrown through C
  template <class F>
  static Status guarded(const Api& api, const std::string& node, F f) {
    try {
      f();
      return nullptr;
    } catch (const std::exception& error) {
      constexpr int kInvalidArgument = 2;
      return api.CreateStatus(kInvalidArgument, (std::string(K::name) + " '" + node + "': " + error.what()).c_str());
    }
  }
  static const Api& api_of(const OrtCustomOp* op) { return static_cast<const Op*>(op)->api_; }

  static Status create(const OrtCustomOp* op, const OrtApi*, const OrtKernelInfo* info, void** kernel) {
    const NodeInfo node(api_of(op), info);
    std::string name;
    return guarded(api_of(op), name, [&] {
      name = node.name();
      auto made = std::make_unique<Kernel>(Kernel{api_of(op), name, std::make_unique<K>(node), nullptr});
      if (OfInputsAlone<K>::value && node.reads_constants(K::inputs.size())) made->kept = std::make_unique<Kept>();
      *kernel = made.release();
    });
  }
  static Status compute(void* kernel, OrtKernelContext* context) {
    const Kernel& k = *static_cast<Kernel*>(kernel);
    return guarded(k.api, k.node, [&] {
      const Context run(k.api, context);
      if (k.kept)
        k.kept->answer(run, [&] { k.k->compute(run); });
      else
        k.k->compute(run);
    });
  }
  static size_t first_in_place(int** input, int** output) {
    *input = new int(0), *output = new int(0);
    return 1;
  }
  static Status infer(const OrtCustomOp* op, OrtShapeInferContext* context) {
    if (!KeepsShape<K>::value) return nullptr;  // known when it runs
    return guarded(api_of(op), "", [&] { infer_shape(api_of(op), context); });
  }

  const Api& api_;
};

}  // namespace hwfault::ort
