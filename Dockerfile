# The image of resetd: only a static binary, the root certificates for TLS, and the licences. There is no
# shell, no package and no user database in it. It runs as a number, on a read-only file system, without
# capabilities.
#
#   docker build --build-arg VERSION=0.3.0 --build-arg REVISION="$(git rev-parse HEAD)" -t resetd .
#
# The base has a version for people and a digest for machines, which is an index of all platforms. Both
# change together with the workflows' go-version, because the Go that builds the image also checks and
# releases the program (test/repo).
FROM --platform=$BUILDPLATFORM docker.io/library/golang:1.26.8-alpine3.24@sha256:8ac98ca534ac3f51e1f420a1dd2c15e74c75cfa0f23f3ad27eb5d7236c349a0c AS build
WORKDIR /src
ENV CGO_ENABLED=0 GOFLAGS=-mod=readonly GOTOOLCHAIN=local

# This is a separate layer, because modules change less often than code.
COPY go.mod go.sum ./
RUN go mod download

COPY . .
# The licences require their texts in every copy, also in an image. The texts are those of all platforms, so
# this step comes before the choice of a platform. It fails on a licence that nobody has read.
RUN mkdir /out && go run ./test/licences -texts /out/THIRD_PARTY_LICENSES

# The builder sets these. A default here would override its values.
ARG TARGETOS
ARG TARGETARCH
ARG VERSION=dev
ARG REVISION
# The same sources and arguments give the same bytes, in any folder and on any machine: paths
# are trimmed, and the revision is an argument, because there is no repository here.
RUN GOOS="$TARGETOS" GOARCH="$TARGETARCH" go build -trimpath -buildvcs=false \
	-ldflags "-s -w -X main.version=$VERSION -X main.commit=$REVISION" \
	-o /out/resetd ./cmd/resetd

FROM scratch
# resetd calls Supabase and Mailgun over TLS.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /src/LICENSE /out/THIRD_PARTY_LICENSES /licenses/
COPY --from=build /out/resetd /resetd

# This is the usual number for "nonroot". It needs no name here, because nothing looks names up.
USER 65532:65532

# Probes and Prometheus come from outside of the container, so the operator's listener is not
# on its loopback. Nevertheless it is not exposed, because `docker run -P` would publish it. Reach it over the
# containers' network, and never publish port 9090.
ENV ADMIN_ADDR=:9090
EXPOSE 8080

# The program itself gives up after 3 s, and says why. Kubernetes ignores this and has its own probes. The OCI
# image format ignores it too (podman and buildah: --format docker).
HEALTHCHECK --interval=10s --timeout=5s --start-period=5s --retries=3 CMD ["/resetd", "healthcheck"]

# After SIGTERM a stop takes at most SHUTDOWN_DELAY and SHUTDOWN_TIMEOUT together, 25 s by default, but
# runtimes kill after 10 s: allow 30 s (docker run --stop-timeout 30).
STOPSIGNAL SIGTERM
ENTRYPOINT ["/resetd"]
CMD ["serve"]

ARG VERSION=dev
ARG REVISION
# RFC 3339. A release gives the date of its commit, so that building it again gives the same image.
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="resetd" \
	org.opencontainers.image.description="Sends the password-reset mail of a Supabase Auth project through Mailgun, and tells nobody who has an account" \
	org.opencontainers.image.source="https://github.com/resetd/resetd" \
	org.opencontainers.image.documentation="https://github.com/resetd/resetd/blob/main/README.md" \
	org.opencontainers.image.licenses="Apache-2.0" \
	org.opencontainers.image.version="$VERSION" \
	org.opencontainers.image.revision="$REVISION" \
	org.opencontainers.image.created="$CREATED"
