#include "ort_op.h"

#include <cstring>
#include <limits>

namespace hwfault::ort {

namespace {
// slot 2 of the table
const char* message(const Api& api, Status status) { return Slot<const char*(const OrtStatus*), 2>{api.api}(status); }
}  // namespace

void check(const Api& api, Status status) {
  if (!status) return;
  const std::string text = message(api, status);
  api.ReleaseStatus(status);
  throw Error(text);
}

// onnxruntime says rank 0 for an unknown rank and -1 for an unknown dimension, and would take both at their word
void infer_shape(const Api& api, OrtShapeInferContext* context) {
  Info* info = nullptr;  // stays the context's
  check(api, api.ShapeInferContext_GetInputTypeShape(context, 0, &info));
  size_t rank = 0;
  check(api, api.GetDimensionsCount(info, &rank));
  Shape shape(rank);
  std::vector<const char*> names(rank, "");
  check(api, api.GetDimensions(info, shape.data(), rank));
  check(api, api.GetSymbolicDimensions(info, names.data(), rank));
  for (size_t i = 0; i < rank; ++i)
    if (shape[i] < 0 && !*names[i]) return;
  if (rank > 0) check(api, api.ShapeInferContext_SetOutputTypeShape(context, 0, info));
}

bool NodeInfo::found(Status status) const {
  if (status) api_.ReleaseStatus(status);
  return !status;
}

std::string NodeInfo::name() const {
  size_t size = 0;
  if (!found(api_.KernelInfo_GetNodeName(info_, nullptr, &size)) && size == 0) return "";
  std::string name(size, '\0');
  if (!found(api_.KernelInfo_GetNodeName(info_, name.data(), &size))) return "";
  return name.c_str();  // without the terminating zero
}

// Throws Error if there is such an attribute after all, only of another type: onnxruntime's getters do not say which.
void NodeInfo::expect_absent(const char* attribute, const char* type) const {
  int64_t integer = 0;
  float number = 0;
  size_t text = 0, integers = 0, numbers = 0;
  const bool one = found(api_.KernelInfoGetAttribute_int64(info_, attribute, &integer)) ||
                   found(api_.KernelInfoGetAttribute_float(info_, attribute, &number));
  found(api_.KernelInfoGetAttribute_string(info_, attribute, nullptr, &text));
  found(api_.KernelInfoGetAttributeArray_int64(info_, attribute, nullptr, &integers));
  found(api_.KernelInfoGetAttributeArray_float(info_, attribute, nullptr, &numbers));
  if (one || text || integers || numbers) throw Error(std::string("the attribute ") + attribute + " is no " + type);
}

int64_t NodeInfo::integer(const char* attribute, int64_t otherwise) const {
  int64_t value = 0;
  if (found(api_.KernelInfoGetAttribute_int64(info_, attribute, &value))) return value;
  expect_absent(attribute, "integer");
  return otherwise;
}

int64_t NodeInfo::integer(const char* attribute) const {
  int64_t value = 0;
  if (!found(api_.KernelInfoGetAttribute_int64(info_, attribute, &value)))
    throw Error(std::string("the attribute ") + attribute + " is missing or no integer");
  return value;
}

int64_t NodeInfo::integer(const char* attribute, int64_t otherwise, int64_t least, int64_t most) const {
  const int64_t value = integer(attribute, otherwise);
  expect_within(attribute, value, least, most);
  return value;
}

void NodeInfo::expect_within(const char* attribute, int64_t value, int64_t least, int64_t most) const {
  if (value < least || value > most)
    throw Error(std::string("the attribute ") + attribute + " holds " + std::to_string(value) + ", expected " +
                std::to_string(least) + " to " + std::to_string(most));
}

float NodeInfo::number(const char* attribute, float otherwise) const {
  float value = 0;
  if (found(api_.KernelInfoGetAttribute_float(info_, attribute, &value))) return value;
  expect_absent(attribute, "number with a fraction (a float)");
  return otherwise;
}

std::string NodeInfo::text(const char* attribute, const char* otherwise) const {
  size_t size = 0;
  found(api_.KernelInfoGetAttribute_string(info_, attribute, nullptr, &size));
  std::string value(size, '\0');
  if (size && found(api_.KernelInfoGetAttribute_string(info_, attribute, value.data(), &size))) return value.c_str();
  expect_absent(attribute, "text");
  return otherwise;
}

std::vector<int64_t> NodeInfo::integers(const char* attribute, bool required) const {
  size_t size = 0;
  const bool known = found(api_.KernelInfoGetAttributeArray_int64(info_, attribute, nullptr, &size));
  std::vector<int64_t> values(size);
  if (size && found(api_.KernelInfoGetAttributeArray_int64(info_, attribute, values.data(), &size))) return values;
  if (!known && required) throw Error(std::string("the attribute ") + attribute + " is missing or no list of integers");
  expect_absent(attribute, "list of integers");  // what is no such list looks like an empty one
  return {};
}

std::vector<int64_t> NodeInfo::integers(const char* attribute, size_t count, std::vector<int64_t> otherwise,
                                        int64_t least, int64_t most) const {
  size_t size = 0;
  found(api_.KernelInfoGetAttributeArray_int64(info_, attribute, nullptr, &size));
  std::vector<int64_t> values = std::move(otherwise);
  if (size > 0)
    values = integers(attribute);
  else
    expect_absent(attribute, "list of integers");
  if (values.size() != count)
    throw Error(std::string("the attribute ") + attribute +
                (size ? " has " + std::to_string(values.size()) + " integers" : " is missing or empty") +
                ", expected " + std::to_string(count) + " integers");
  for (const int64_t value : values) expect_within(attribute, value, least, most);
  return values;
}

bool NodeInfo::reads_constants(size_t count) const {
  for (size_t i = 0; i < count; ++i) {
    int constant = 0;
    const OrtValue* value = nullptr;
    if (!found(api_.KernelInfoGetConstantInput_tensor(info_, i, &constant, &value)) || !constant) return false;
  }
  return true;
}

int64_t element_count(const Shape& shape) {
  int64_t count = 1;
  bool empty = false;
  for (const int64_t length : shape) {
    empty = empty || length == 0;
    if (length < 0 || count > std::numeric_limits<int64_t>::max() / std::max<int64_t>(length, 1))
      throw Error("a tensor of shape " + text_of(shape) + ", expected less than 2^63 values");
    count *= std::max<int64_t>(length, 1);
  }
  return empty ? 0 : count;
}

std::string text_of(const Shape& shape) {
  std::string text = "(";
  for (const int64_t length : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(length);
  return text + ")";
}

size_t Context::input_count() const {
  size_t count = 0;
  check(api_, api_.KernelContext_GetInputCount(context_, &count));
  return count;
}

// Every node asks for the shape of each input at each run, which onnxruntime before 1.24 answers with objects to be freed.
static Shape shape_of(const Api& api, const OrtValue* value) {
  size_t rank = 0;
  if (api.shows_shapes) {
    int type = 0;
    const int64_t* lengths = nullptr;
    check(api, api.GetTensorElementTypeAndShapeDataReference(value, &type, &lengths, &rank));
    return Shape(lengths, lengths + rank);
  }
  Info* info = nullptr;
  check(api, api.GetTensorTypeAndShape(value, &info));
  Shape shape;
  Status status = api.GetDimensionsCount(info, &rank);
  if (!status) {
    shape.resize(rank);
    status = api.GetDimensions(info, shape.data(), rank);
  }
  api.ReleaseTensorTypeAndShapeInfo(info);
  check(api, status);
  return shape;
}

std::pair<void*, Shape> Context::raw_input(size_t index) const {
  const OrtValue* value = nullptr;
  check(api_, api_.KernelContext_GetInput(context_, index, &value));
  if (!value) throw Error("input " + std::to_string(index) + " is missing");
  Shape shape = shape_of(api_, value);
  element_count(shape);  // what is computed from it below needs no checks of its own
  void* data = nullptr;
  check(api_, api_.GetTensorMutableData(const_cast<OrtValue*>(value), &data));
  return {data, std::move(shape)};
}

void* Context::raw_output(const Shape& shape) const {
  OrtValue* value = nullptr;
  check(api_, api_.KernelContext_GetOutput(context_, 0, shape.data(), shape.size(), &value));
  void* data = nullptr;
  check(api_, api_.GetTensorMutableData(value, &data));
  return data;
}

void Kept::copy_to(const Context& context) const {
  constexpr int64_t kPart = 1 << 18;  // words a thread copies at a time
  float* to = context.output<float>(shape_);
  context.share_out(static_cast<int64_t>(values_.size()), kPart, [&](int64_t first, int64_t last) {
    std::memcpy(to + first, values_.data() + first, static_cast<size_t>(last - first) * sizeof(float));
  });
}

void Kept::keep(const Context& context) {
  Shape shape = context.input<float>(0).shape;
  const float* made = context.output<float>(shape);  // the one that was computed
  const std::lock_guard<std::mutex> lock(alone_);
  if (ready_.load(std::memory_order_relaxed)) return;
  values_.assign(made, made + element_count(shape));
  shape_ = std::move(shape);
  ready_.store(true, std::memory_order_release);
}

void Context::parallel_for(void (*function)(void*, size_t), size_t total, void* user) const {
  check(api_, api_.KernelContext_ParallelFor(context_, function, total, 0, user));
}

}  // namespace hwfault::ort
