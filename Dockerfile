# The image of resetd: one static binary, the roots of TLS and the licences of all, nothing
# else. There is no shell, no package and no user database in it; it runs as a number, on a
# read-only file system, with no capability.
#
#   docker build --build-arg VERSION=0.3.0 --build-arg REVISION="$(git rev-parse HEAD)" -t resetd .
#
# The base is named by version for people and by digest for machines: an index of all
# platforms. Both change together, and the workflows' go-version with them: the program is
# checked and released by the Go that builds the image (test/workflows.sh).
FROM --platform=$BUILDPLATFORM docker.io/library/golang:1.26.8-alpine3.24@sha256:8ac98ca534ac3f51e1f420a1dd2c15e74c75cfa0f23f3ad27eb5d7236c349a0c AS build
WORKDIR /src
ENV CGO_ENABLED=0 GOFLAGS=-mod=readonly GOTOOLCHAIN=local

# A layer of its own: modules change less often than code.
COPY go.mod go.sum ./
RUN go mod download

COPY . .
# The licences ask that their texts go with every copy, and an image is one. The texts are those
# of all platforms, so this comes before there is one. It fails on a licence that nobody has read.
RUN mkdir /out && go run ./test/licences -texts /out/THIRD_PARTY_LICENSES

# Told by the builder; a default here would win over what it tells.
ARG TARGETOS
ARG TARGETARCH
ARG VERSION=dev
ARG REVISION
# The same sources and arguments give the same bytes, in any folder and on any machine: paths
# are trimmed, and the revision is told rather than looked up, as there is no repository here.
RUN GOOS="$TARGETOS" GOARCH="$TARGETARCH" go build -trimpath -buildvcs=false \
	-ldflags "-s -w -X main.version=$VERSION -X main.commit=$REVISION" \
	-o /out/resetd ./cmd/resetd

FROM scratch
# Supabase and Mailgun are asked by TLS.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /src/LICENSE /out/THIRD_PARTY_LICENSES /licenses/
COPY --from=build /out/resetd /resetd

# The number that others use for "nonroot". There is no name for it: nothing here looks names up.
USER 65532:65532

# Probes and Prometheus come from outside of the container, so the operator's listener is not
# on its loopback. It is not exposed all the same, or `docker run -P` would publish it: reach
# it over the containers' network, and never publish port 9090.
ENV ADMIN_ADDR=:9090
EXPOSE 8080

# The program gives up after 3 s by itself, and says why. Kubernetes has probes of its own and
# ignores this; so does the OCI image format (podman and buildah: --format docker).
HEALTHCHECK --interval=10s --timeout=5s --start-period=5s --retries=3 CMD ["/resetd", "healthcheck"]

# SIGTERM takes SHUTDOWN_DELAY and SHUTDOWN_TIMEOUT together at most, 25 s by default, and
# runtimes kill after 10: give it 30 (docker run --stop-timeout 30).
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
