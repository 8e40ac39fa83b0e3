// A cache-aside client of sidecache; Go 1.19 or later, standard library only.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"sync/atomic"
	"time"
)

const (
	connectTimeout = 100 * time.Millisecond // the sidecar is on this machine or next to it
	wholeTimeout   = 400 * time.Millisecond // more than the service's redis_timeout_ms, so that it can report a dead shard
	leaseTime      = 10 * time.Second       // longer than a load takes
	waitTime       = 2 * time.Second        // how long to wait for a value that another program loads
	rest           = time.Second            // if the cache does not answer, reads use the source for this long
)

// Cache keeps its connections open between calls, so use one for the whole program.
type Cache struct {
	http   http.Client
	base   string
	ttl    time.Duration
	resume atomic.Int64 // Unix nanoseconds
}

var won = regexp.MustCompile(`^won;token="([^"]*)"`)

type answer struct {
	status int
	lease  string // the header Cache-Lease
	body   []byte
}

type entry struct {
	Value json.RawMessage `json:"value"`
	TTL   int             `json:"ttl,omitempty"`
}

func NewCache(base, namespace string, ttl time.Duration) *Cache {
	transport := &http.Transport{ // without a proxy, whatever the environment says
		DialContext:         (&net.Dialer{Timeout: connectTimeout}).DialContext,
		MaxIdleConnsPerHost: 64,              // the default of 2 would open new connections all the time
		IdleConnTimeout:     4 * time.Second, // less than the service's idle_timeout_ms
	}
	path := base + "/api/v1/cache/" + url.PathEscape(namespace) + "/"
	return &Cache{http: http.Client{Transport: transport}, base: path, ttl: ttl}
}

// Read returns the value of the key and where it came from. An error of load is returned and not stored.
func (c *Cache) Read(ctx context.Context, key string, load func(string) (json.RawMessage, error)) (json.RawMessage, string, error) {
	found, err := c.get(ctx, key)
	if err == nil && found.status == http.StatusOK {
		var value entry
		if err = json.Unmarshal(found.body, &value); err == nil && value.Value != nil {
			return value.Value, "cache", nil
		}
		err = fmt.Errorf("no entry: %s", found.body)
	}
	if err != nil {
		log.Printf("reading %s from the source: %v", key, err)
		loaded, err := load(key) // do not store it: the cache would not answer either
		return loaded, "source", err
	}
	header := http.Header{}
	if token := won.FindStringSubmatch(found.lease); token != nil {
		header.Set("Cache-Lease", token[1])
	}
	loaded, err := load(key)
	if err != nil {
		if len(header) > 0 { // give the lease up: the next program need not wait until it ends
			c.succeeds(context.Background(), http.MethodDelete, key, "/lease", header, nil)
		}
		return nil, "source", err
	}
	if strings.HasPrefix(found.lease, "held") { // the program that has the lease stores the value
		return loaded, "source", nil
	}
	body, err := json.Marshal(entry{Value: loaded, TTL: int(c.ttl.Seconds())})
	if err != nil {
		return nil, "source", err
	}
	// 412 `lease_lost` means that the key changed during the load. Then nothing is stored, which is right.
	c.succeeds(ctx, http.MethodPut, key, "", header, body)
	return loaded, "source", nil
}

// Changed must be called after the source has changed. False: the cache may serve the old value until its TTL ends.
func (c *Cache) Changed(key string) bool {
	for attempt := 0; attempt < 3; attempt++ {
		// Not the request's context: the cache must hear of the change even if the request is over.
		if c.succeeds(context.Background(), http.MethodDelete, key, "", nil, nil) { // 200 or 404
			return true
		}
		// Also after `outcome_unknown`: deleting again is safe and makes the outcome clear.
		time.Sleep(50 * time.Millisecond << attempt)
	}
	return false
}

// get returns the entry, or the state of the lease on the key.
func (c *Cache) get(ctx context.Context, key string) (answer, error) {
	if time.Now().UnixNano() < c.resume.Load() {
		return answer{}, errors.New("the cache did not answer a moment ago")
	}
	prefer := fmt.Sprintf("lease=%d", int(leaseTime.Seconds()))
	found, err := c.call(ctx, wholeTimeout, http.MethodGet, key, "", http.Header{"Prefer": {prefer}}, nil)
	if err == nil && strings.HasPrefix(found.lease, "held") {
		// Another program is loading the value. The service answers, so waiting may take longer than the timeout.
		prefer = fmt.Sprintf("%s, wait=%d", prefer, int(waitTime.Seconds()))
		return c.call(ctx, waitTime+wholeTimeout, http.MethodGet, key, "", http.Header{"Prefer": {prefer}}, nil)
	}
	return found, err
}

func (c *Cache) succeeds(ctx context.Context, method, key, suffix string, header http.Header, body []byte) bool {
	_, err := c.call(ctx, wholeTimeout, method, key, suffix, header, body)
	if err != nil {
		log.Printf("%s %s: %v", method, key, err)
	}
	return err == nil
}

// call fails if the cache does not answer, or if its answer says nothing about the key.
func (c *Cache) call(ctx context.Context, timeout time.Duration, method, key, suffix string, header http.Header, body []byte) (answer, error) {
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(limited, method, c.base+url.PathEscape(key)+suffix, bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	if header != nil {
		request.Header = header
	}
	response, err := c.http.Do(request)
	if err != nil {
		return answer{}, c.unanswered(ctx, err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body) // read all of it, otherwise the connection cannot be reused
	if err != nil {
		return answer{}, c.unanswered(ctx, err)
	}
	status := response.StatusCode
	miss := status == http.StatusNotFound && bytes.Contains(text, []byte(`"key_not_found"`))
	if status == http.StatusOK || status == http.StatusCreated || miss {
		return answer{status, response.Header.Get("Cache-Lease"), text}, nil
	}
	return answer{}, fmt.Errorf("%d %s", status, text)
}

func (c *Cache) unanswered(ctx context.Context, err error) error {
	if ctx.Err() == nil { // a cancelled caller says nothing about the cache
		c.resume.Store(time.Now().Add(rest).UnixNano())
	}
	return err
}

// Reads lines from stdin: `read KEY`, or `change KEY VALUE` with a value in JSON.
func main() {
	cache := NewCache("http://"+os.Args[1], os.Args[2], 300*time.Second)
	source := map[string]json.RawMessage{} // in your program: the database
	load := func(key string) (json.RawMessage, error) {
		if value, found := source[key]; found {
			return value, nil
		}
		return nil, errors.New("not in the source")
	}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		words := strings.SplitN(lines.Text(), " ", 3)
		if words[0] == "change" {
			source[words[1]] = json.RawMessage(words[2])
			if cache.Changed(words[1]) {
				fmt.Println("changed")
			} else {
				fmt.Println("changed, and the cache does not know")
			}
		} else if value, origin, err := cache.Read(context.Background(), words[1], load); err != nil {
			fmt.Println("error:", err)
		} else {
			fmt.Println(origin, string(value))
		}
	}
}
