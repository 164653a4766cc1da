package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"time"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/resetd/resetd/impl"
)

// tracingWanted says whether OpenTelemetry's standard variables set an exporter, and refuses
// what is not built in: spans go out as OTLP over HTTP, and nothing but spans does.
// https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
func tracingWanted(variables map[string]string, wrong *mistakes) bool {
	const exporter = "OTEL_TRACES_EXPORTER"
	wanted := false
	for _, name := range []string{"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"} {
		if variables[name] == "" {
			continue
		}
		wanted = true
		if u, err := url.Parse(variables[name]); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			wrong.add(name, "must be an address like http://collector:4318")
		}
	}
	for _, name := range []string{"OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"} {
		if value := variables[name]; value != "" && value != "http/protobuf" {
			wrong.add(name, "must be http/protobuf")
		}
	}
	switch variables[exporter] {
	case "":
	case "otlp":
		wanted = true
	case "none":
		wanted = false
	default:
		wrong.add(exporter, "must be otlp or none")
	}
	return wanted && variables["OTEL_SDK_DISABLED"] != "true"
}

// flushTimeout is for the last spans, on the way out.
const flushTimeout = 3 * time.Second

// newTracer sends spans to where the standard variables say; the SDK reads them itself. close
// sends what is left.
func newTracer(ctx context.Context, logger *slog.Logger) (tracer trace.Tracer, closeTracer func(), err error) {
	// The SDK speaks through globals, and its errors repeat addresses and what they answered.
	otel.SetLogger(logr.Discard())
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		logger.Warn("spans were lost", "error", impl.Cause(err).Error())
	}))
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("tracing: %w", impl.Cause(err))
	}
	described, err := resource.New(ctx,
		resource.WithAttributes(attribute.String("service.name", "resetd"), attribute.String("service.version", version)),
		resource.WithTelemetrySDK(),
		resource.WithFromEnv(), // last: OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win
	)
	if err != nil && !errors.Is(err, resource.ErrPartialResource) {
		return nil, nil, fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES: %w", impl.Cause(err))
	}
	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(described))
	return provider.Tracer("github.com/resetd/resetd"), func() {
		ctx, cancel := context.WithTimeout(context.Background(), flushTimeout)
		defer cancel()
		if err := provider.Shutdown(ctx); err != nil {
			logger.Warn("spans were lost", "error", impl.Cause(err).Error())
		}
	}, nil
}
