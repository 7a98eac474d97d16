# hwfault in an image: `docker build -t hwfault .`, then `docker run --rm -v "$PWD:/work" hwfault sites graph.onnx`.
# EXTRAS=train adds PyTorch and Brevitas: `docker build --build-arg EXTRAS=train -t hwfault .`
ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
RUN apt-get update && apt-get install --yes --no-install-recommends cmake g++ make && rm -rf /var/lib/apt/lists/*
COPY . /source
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels /source

FROM python:${PYTHON}-slim
ARG EXTRAS=measure
COPY --from=build /wheels /wheels
COPY constraints.txt /wheels/constraints.txt
RUN wheel="$(ls /wheels/*.whl)" \
    && pip install --no-cache-dir --constraint /wheels/constraints.txt "${wheel}[${EXTRAS}]" \
    && rm -r /wheels \
    && useradd --create-home hwfault
USER hwfault
WORKDIR /work
ENTRYPOINT ["hwfault"]
CMD ["--help"]
