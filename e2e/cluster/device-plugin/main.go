// device-plugin plays the devices of a node for its kubelet:
//
//	device-plugin FOLDER RESOURCE DEVICES
//
// FOLDER is the kubelet's for plugins, RESOURCE what the devices are called (nvidia.com/gpu), DEVICES a file with a line
// "ID Healthy" or "ID Unhealthy" for each. The file is read again and again, so a test changes it to change the node.
// A kubelet that starts empties the folder; the plugin then serves and registers anew.
package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

const every = 100 * time.Millisecond

func main() {
	if len(os.Args) != 4 {
		log.Fatal("usage: device-plugin FOLDER RESOURCE DEVICES")
	}
	folder, resource := os.Args[1], os.Args[2]
	watched := &devices{path: os.Args[3]}
	socket := filepath.Join(folder, strings.NewReplacer("/", "-", ".", "-").Replace(resource)+".sock")
	kubelet := filepath.Join(folder, "kubelet.sock")
	for {
		if err := offer(socket, kubelet, resource, watched); err != nil {
			log.Print(err)
		}
		time.Sleep(every)
	}
}

// offer serves and registers, and returns when the kubelet has been replaced.
func offer(socket, kubelet, resource string, watched *devices) error {
	of := inode(kubelet)
	if of == 0 {
		return nil
	}
	if err := os.RemoveAll(socket); err != nil {
		return err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	api.RegisterDevicePluginServer(server, &plugin{watched: watched})
	defer server.Stop()
	go server.Serve(listener)
	if err := register(kubelet, filepath.Base(socket), resource); err != nil {
		return err
	}
	log.Printf("%s is registered", resource)
	own := inode(socket)
	for inode(kubelet) == of && inode(socket) == own {
		time.Sleep(every)
	}
	return nil
}

func register(kubelet, endpoint, resource string) error {
	connection, err := grpc.NewClient("unix://"+kubelet, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	request := &api.RegisterRequest{Version: api.Version, Endpoint: endpoint, ResourceName: resource}
	_, err = api.NewRegistrationClient(connection).Register(ctx, request)
	return err
}

// inode tells one socket of a name from the next; 0 is none.
func inode(path string) uint64 {
	var found syscall.Stat_t
	if syscall.Stat(path, &found) != nil {
		return 0
	}
	return found.Ino
}

// devices are those of the file.
type devices struct{ path string }

func (d *devices) read() ([]*api.Device, string, error) {
	text, err := os.ReadFile(d.path)
	if err != nil {
		return nil, "", err
	}
	found := []*api.Device{}
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if len(words) != 2 || !slices.Contains([]string{api.Healthy, api.Unhealthy}, words[1]) {
			return nil, "", fmt.Errorf("%s: %q is no device", d.path, line)
		}
		found = append(found, &api.Device{ID: words[0], Health: words[1]})
	}
	return found, string(text), nil
}

type plugin struct {
	api.UnimplementedDevicePluginServer
	watched *devices
}

func (p *plugin) GetDevicePluginOptions(context.Context, *api.Empty) (*api.DevicePluginOptions, error) {
	return &api.DevicePluginOptions{}, nil
}

// ListAndWatch tells of the devices at once and after each change.
func (p *plugin) ListAndWatch(_ *api.Empty, stream grpc.ServerStreamingServer[api.ListAndWatchResponse]) error {
	told := "nothing"
	for stream.Context().Err() == nil {
		found, text, err := p.watched.read()
		if err != nil {
			return err
		}
		if text != told {
			if err := stream.Send(&api.ListAndWatchResponse{Devices: found}); err != nil {
				return err
			}
			told = text
		}
		time.Sleep(every)
	}
	return nil
}

// Allocate gives a container its devices the way the vendor's container runtime wants them told.
func (p *plugin) Allocate(_ context.Context, request *api.AllocateRequest) (*api.AllocateResponse, error) {
	answer := &api.AllocateResponse{}
	for _, container := range request.ContainerRequests {
		visible := map[string]string{"NVIDIA_VISIBLE_DEVICES": strings.Join(container.DevicesIds, ",")}
		answer.ContainerResponses = append(answer.ContainerResponses, &api.ContainerAllocateResponse{Envs: visible})
	}
	return answer, nil
}
