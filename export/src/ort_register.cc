// The entry point that onnxruntime calls when the library is registered with a session's options.
#include <climits>
#include <cstdlib>

#include "hwfault.h"
#include "ort_affine.h"
#include "ort_array.h"
#include "ort_clip.h"
#include "ort_faults.h"
#include "ort_floatquant.h"
#include "ort_im2col.h"
#include "ort_pool.h"
#include "ort_protect.h"
#include "ort_quant.h"
#include "ort_threshold.h"
#include "ort_trunc.h"
#include "ort_xnor.h"

namespace hwfault::ort {
namespace {

// The ops and their domains; made once, and never freed: sessions refer to them until the process ends.
class Library {
 public:
  Library(const OrtApi* table, int minor) : api_(table, minor) {
    // the last three are what older versions of Brevitas, QONNX and FINN wrote
    for (const char* domain : {"qonnx.custom_op.general", "onnx.brevitas", "finn.custom_op.general", "finn"})
      add(domain, {new Op<Quant>(api_), new Op<IntQuant>(api_), new Op<BipolarQuant>(api_), new Op<Trunc>(api_),
                   new Op<FloatQuant>(api_), new Op<MultiThreshold>(api_), new Op<Im2Col>(api_),
                   new Op<XnorPopcountMatMul>(api_), new Op<QuantAvgPool2d>(api_), new Op<MaxPoolNHWC>(api_)});
    std::vector<const OrtCustomOp*> own = {new Op<ArrayFaults<float>>(api_), new Op<ArrayFaults<double>>(api_),
                                           new Op<Affine<float>>(api_), new Op<Affine<double>>(api_)};
    add_fault_ops<float, double, int8_t, uint8_t, int16_t, uint16_t, int32_t>(own);
    add("hwfault", own);
  }

  void add_to(OrtSessionOptions* options) const {
    for (OrtCustomOpDomain* domain : domains_) check(api_, api_.AddCustomOpDomain(options, domain));
  }

 private:
  // the ops that strike words, for words of each type
  template <class... T>
  void add_fault_ops(std::vector<const OrtCustomOp*>& to) {
    (to.insert(to.end(), {new Op<TransientFaults<T>>(api_), new Op<FaultMap<T>>(api_), new Op<IntermittentFaults<T>>(api_),
                          new Op<ProtectedFaults<T>>(api_), new Op<ClippedRange<T>>(api_)}),
     ...);
  }
  void add(const char* name, const std::vector<const OrtCustomOp*>& ops) {
    OrtCustomOpDomain* domain = nullptr;
    check(api_, api_.CreateCustomOpDomain(name, &domain));
    for (const OrtCustomOp* op : ops) check(api_, api_.CustomOpDomain_Add(domain, op));
    domains_.push_back(domain);
  }

  Api api_;
  std::vector<OrtCustomOpDomain*> domains_;
};

// n of "1.n.m"; a later major version has all that 1 had
int minor_of(const char* version) {
  char* rest = nullptr;
  const long major = std::strtol(version, &rest, 10);
  return major > 1 ? INT_MAX : *rest == '.' ? std::atoi(rest + 1) : 0;
}

}  // namespace
}  // namespace hwfault::ort

extern "C" HWFAULT_API OrtStatus* RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* base) {
  using namespace hwfault::ort;
  const OrtApi* table = base->GetApi(kApiVersion);
  if (!table) {
    // the first slots are the same in every version; without them there is no way to say what is wrong
    table = base->GetApi(1);
    return table ? Api(table).CreateStatus(1, "hwfault needs onnxruntime 1.20 or newer") : nullptr;
  }
  try {
    static const Library* const library = new Library(table, minor_of(base->GetVersionString()));
    library->add_to(options);
    return nullptr;
  } catch (const std::exception& error) {
    return Api(table).CreateStatus(1, error.what());
  }
}
