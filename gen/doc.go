// Package gen is what go generate writes from openapi.yaml: the strict Echo server
// interface, the models and the embedded document. Nothing in it is written by hand but
// this comment and the directives below, and it imports no other package of this module.
package gen

//go:generate sh -c "cd .. && go tool oapi-codegen -config oapi-codegen.yaml openapi.yaml"
//go:generate sh -c "cd .. && go tool oapi-codegen -config gen/client/oapi-codegen.yaml openapi.yaml"
